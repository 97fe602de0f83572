"""What the benchmarks measure beside this project: transformers with peft's LoRA, and with the authors' layer.

Both want the packages of requirements-dev.txt.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from hyper import HyperNetwork

ROLES = 5
COPIED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "num_key_value_heads")


class Theirs:
    """transformers' LLaMA with peft's LoRA or the authors' layer; right padding, mask, labels, full logits."""
    buckets = False

    def __init__(self, method, config, dtype, device, checkpoint):
        import peft
        import transformers
        hf = transformers.LlamaConfig(**{key: getattr(config, key) for key in COPIED}, max_position_embeddings=4096)
        with torch.device(device):
            model = transformers.LlamaForCausalLM(hf).to(dtype).requires_grad_(False)
        self.role_ids = None
        if method == "peft":
            lora = peft.LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear")
            model = peft.get_peft_model(model, lora).to(device)
        else:
            self.adapt(model, device)
        if checkpoint:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()

        self.model = model.train()
        self.dtype = dtype
        self.device = device
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, fused=True)

    def adapt(self, model, device):
        """Puts the authors' layer in place of each linear of the blocks."""
        layers = model.model.layers
        kinds = {}
        for name, module in list(layers.named_modules()):
            if isinstance(module, nn.Linear):
                kinds.setdefault(name.rsplit(".", 1)[-1], []).append(name)

        shapes = {}
        for kind, names in kinds.items():
            _, d_in = layers.get_submodule(names[0]).weight.shape
            shapes[kind] = (len(names), {"A": (8, d_in)})
        with torch.device(device):
            model.net = HyperNetwork(ROLES, shapes)

        self.role_ids = []                                               # one element: the ids of the batch
        index = 0
        for kind, names in kinds.items():
            for name in names:
                parent, _, child = name.rpartition(".")
                layer = OfficialLinear(layers.get_submodule(name), model.net, kind, index, self.role_ids)
                setattr(layers.get_submodule(parent), child, layer)
                index += 1

    def step(self, rows):
        """One optimizer step on training rows."""
        T = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), T, dtype=torch.long)
        labels = torch.full((len(rows), T), -100)
        for b, row in enumerate(rows):
            ids[b, :len(row.ids)] = torch.tensor(row.ids)
            labels[b, row.prompt_len:len(row.ids)] = ids[b, row.prompt_len:len(row.ids)]
        mask = torch.arange(T) < torch.tensor([[len(row.ids)] for row in rows])
        if self.role_ids is not None:
            self.role_ids[:] = [torch.tensor([row.role_id for row in rows], device=self.device)]

        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.model(ids.to(self.device), attention_mask=mask.to(self.device),
                              labels=labels.to(self.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class OfficialLinear(nn.Module):
    """The authors' layer: A from a hyper-network that runs here, for every sample."""
    def __init__(self, base, net, kind, index, role_ids):
        super().__init__()
        self.base = base
        self.shared = [net]                                              # in a list: not a module of this one
        self.kind = kind
        self.index = index
        self.role_ids = role_ids
        self.B = nn.Parameter(torch.zeros(base.out_features, 8, device=base.weight.device))

    def forward(self, x):
        net = self.shared[0]
        roles = self.role_ids[0]
        e_l = net.layer_embedding.weight[self.index].expand(len(roles), -1)
        h = F.relu(net.W_in(net.norm_input(torch.cat((net.role_embedding(roles), e_l), -1))))
        for block in net.blocks:
            h = block(h)
        A = net.heads[f"{self.kind}_A"](net.norm_output(h))                               # (B, r, d_in)
        change = F.dropout(x.float(), 0.1, self.training) @ A.mT @ self.B.t() * 4.0
        out = self.base(x)
        return out + change.to(out.dtype)
