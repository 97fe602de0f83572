"""One optimizer step of the same work in four systems: tokens/s, peak memory, and how near the hardware's limit.

    python -m benchmarks.train_step [--shape toy|smollm2|llama2-7b] [--rounds 12] [--out FILE.json]

    hycora, lora   this project
    peft           transformers + peft's LoRA
    official       transformers with the authors' layer stated plainly: the hyper-network inside every linear, by sample

dense: full rows, every token supervised; half: the second half of each row is; rolebench: English RoleBench's
lengths (percentiles below), response only, each system batching as it does by default: here rows of similar length,
there random ones padded to the longest. Only real tokens count. One step of each system in turn, medians.
Limit: 4 FLOPs per parameter and token (frozen backbone; 6 with --checkpoint) at the machine's measured matmul rate.
"""
import argparse
import json
import platform
import random
import statistics
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import train
from batches import batch_order, collate
from config import Config
from data import Example
from hycora_layer import AdapterConfig, HyperModel
from hyper import HyperNetwork
from model import ModelConfig, Transformer

SHAPES = {
    "toy": dict(vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
                num_key_value_heads=4),
    "smollm2": dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                    num_attention_heads=9, num_key_value_heads=3),
    "llama2-7b": dict(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                      num_attention_heads=32, num_key_value_heads=32),
}
PERCENT = [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.9, 100]      # of rows have at most so many tokens
PROMPT = [13, 18, 20, 23, 25, 27, 29, 31, 33, 36, 50, 75, 106, 124, 206, 283]    # (SmolLM2's tokenizer and template)
ANSWER = [3, 9, 13, 20, 31, 47, 59, 69, 77, 86, 98, 109, 125, 137, 212, 323]
ROLES = 5


class Ours:
    """This project's step, as train.fit takes it."""
    buckets = True

    def __init__(self, method, config, dtype, device, checkpoint):
        with torch.device(device):
            backbone = Transformer(config).to(dtype).requires_grad_(False)
        backbone.checkpoint_activations = checkpoint
        self.model = HyperModel(backbone, AdapterConfig(method=method, num_roles=ROLES)).train()
        self.params = list(self.model.trainable().values())
        self.optimizer = torch.optim.AdamW(self.params, fused=True)
        self.scaler = torch.amp.GradScaler(device, enabled=False)
        self.lam = 0.3 if self.model.projections is not None else 0.0

    def step(self, rows):
        train.backward(self.model, [collate(rows, 0)], Config(), self.lam, self.scaler)
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Theirs:
    """transformers' LLaMA with peft's LoRA or the authors' layer; right padding, mask, labels, full logits."""
    buckets = False

    def __init__(self, method, config, dtype, device, checkpoint):
        import peft
        import transformers
        hf = transformers.LlamaConfig(**{k: getattr(config, k) for k in SHAPES["toy"]}, max_position_embeddings=4096)
        with torch.device(device):
            model = transformers.LlamaForCausalLM(hf).to(dtype).requires_grad_(False)
        if method == "peft":
            lora = peft.LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear")
            model = peft.get_peft_model(model, lora).to(device)
        else:
            self.adapt(model, device)
        if checkpoint:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        self.model, self.dtype, self.device = model.train(), dtype, device
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, fused=True)

    def adapt(self, model, device):
        """Puts the authors' layer in place of each linear of the blocks."""
        kinds = {}
        for name, module in list(model.model.layers.named_modules()):
            if isinstance(module, nn.Linear):
                kinds.setdefault(name.rsplit(".", 1)[-1], []).append(name)
        shapes = {kind: model.model.layers.get_submodule(names[0]).weight.shape for kind, names in kinds.items()}
        with torch.device(device):
            net = HyperNetwork(ROLES, {k: (len(kinds[k]), {"A": (8, d_in)}) for k, (_, d_in) in shapes.items()})
        model.net, self.role_ids, index = net, [], 0
        for kind, names in kinds.items():
            for name in names:
                parent, _, child = name.rpartition(".")
                base = model.model.layers.get_submodule(name)
                setattr(model.model.layers.get_submodule(parent), child,
                        OfficialLinear(base, net, kind, index, self.role_ids))
                index += 1

    def step(self, rows):
        T, device = max(len(r.ids) for r in rows), self.device
        ids, labels = (torch.full((len(rows), T), fill) for fill in (0, -100))
        for b, r in enumerate(rows):
            ids[b, :len(r.ids)] = torch.tensor(r.ids)
            labels[b, r.prompt_len:len(r.ids)] = ids[b, r.prompt_len:len(r.ids)]
        mask = torch.arange(T) < torch.tensor([[len(r.ids)] for r in rows])
        if hasattr(self, "role_ids"):
            self.role_ids[:] = [torch.tensor([r.role_id for r in rows], device=device)]
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.model(ids.to(device), attention_mask=mask.to(device), labels=labels.to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class OfficialLinear(nn.Module):
    """The authors' layer: A from a hyper-network that runs here, for every sample."""
    def __init__(self, base, net, kind, index, role_ids):
        super().__init__()
        self.base, self.shared, self.kind, self.index, self.role_ids = base, [net], kind, index, role_ids
        self.B = nn.Parameter(torch.zeros(base.out_features, 8, device=base.weight.device))

    def forward(self, x):
        net, roles = self.shared[0], self.role_ids[0]
        e_l = net.layer_embedding.weight[self.index].expand(len(roles), -1)
        h = F.relu(net.W_in(net.norm_input(torch.cat((net.role_embedding(roles), e_l), -1))))
        for block in net.blocks:
            h = block(h)
        A = net.heads[f"{self.kind}_A"](net.norm_output(h))                               # (B, r, d_in)
        change = F.dropout(x.float(), 0.1, self.training) @ A.mT @ self.B.t() * 4.0
        out = self.base(x)
        return out + change.to(out.dtype)


def rows_of(workload, n, length, vocab, rng):
    """n training rows of a workload."""
    made = []
    for _ in range(n):
        if workload == "rolebench":
            prompt, answer = (round(np.interp(rng.uniform(0, 100), PERCENT, tokens)) for tokens in (PROMPT, ANSWER))
        else:
            prompt = 1 if workload == "dense" else length // 2
            answer = length - prompt
        ids = [rng.randrange(vocab) for _ in range(prompt + answer)]
        made.append(Example(ids, prompt, rng.randrange(ROLES)))
    return made


def sync(device):
    if device == "cuda":
        torch.cuda.synchronize()


def matmul_rate(config, tokens, dtype, device):
    """FLOP/s of the block's largest matrix product."""
    x, w = (torch.randn(n, config.hidden_size, dtype=dtype, device=device) for n in (tokens, config.intermediate_size))
    seconds = []
    for _ in range(12):
        sync(device)
        start = time.perf_counter()
        x @ w.t()
        sync(device)
        seconds.append(time.perf_counter() - start)
    return 2 * x.numel() * len(w) / statistics.median(seconds[2:])


def measure(systems, workload, args, config, device):
    """{name: {"tokens_per_s", "peak_gib"}} of a workload, one step of each system in turn."""
    rng = random.Random(0)
    rows = rows_of(workload, args.batch * args.rounds * 2, args.length, config.vocab_size, rng)
    shuffled = list(range(len(rows)))
    rng.shuffle(shuffled)
    orders = {True: batch_order(rows, args.batch, 0, 0),
              False: [shuffled[i:i + args.batch] for i in range(0, len(rows), args.batch)]}
    seconds, tokens, peak = ({name: [] for name in systems} for _ in range(3))
    for n in range(-2, args.rounds):                                     # two to warm up
        for name, system in systems.items():
            chosen = [rows[i] for i in orders[system.buckets][n]]
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() - sum(p.nbytes for p in system.model.parameters())
            sync(device)
            start = time.perf_counter()
            system.step(chosen)
            sync(device)
            if n >= 0:
                seconds[name].append(time.perf_counter() - start)
                tokens[name].append(sum(len(r.ids) for r in chosen))
                peak[name].append((torch.cuda.max_memory_allocated() - before) / 2 ** 30 if device == "cuda" else 0)
    rate = {name: sum(tokens[name]) / sum(seconds[name]) if workload == "rolebench" else
            statistics.median(tokens[name]) / statistics.median(seconds[name]) for name in systems}
    return {name: {"tokens_per_s": rate[name], "peak_gib": max(peak[name]) or None} for name in systems}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--shape", choices=SHAPES, default="toy")
    for name, default in (("rounds", 12), ("batch", 8), ("length", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--systems", default="hycora,lora,peft,official")
    parser.add_argument("--checkpoint", action="store_true", help="recompute activations")
    parser.add_argument("--out", help="JSON")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = ModelConfig.from_hf(SHAPES[args.shape] | {"model_type": "llama", "max_position_embeddings": 4096})
    systems = {name: (Ours if name in ("hycora", "lora") else Theirs)(name, config, dtype, device, args.checkpoint)
               for name in args.systems.split(",")}
    with torch.device("meta"):
        backbone = Transformer(config)
    parameters = sum(p.numel() for p in (*backbone.layers.parameters(), backbone.lm_head.weight))
    flops = (6 if args.checkpoint else 4) * parameters                   # per token
    limit = matmul_rate(config, args.batch * args.length, dtype, device) / flops
    conditions = {"shape": args.shape, "batch": args.batch, "length": args.length, "dtype": str(dtype)[6:],
                  "checkpoint": args.checkpoint, "rounds": args.rounds, "torch": torch.__version__,
                  "device": torch.cuda.get_device_name() if device == "cuda" else
                  f"{platform.machine()}, {torch.get_num_threads()} threads", "limit_tokens_per_s": limit}
    results = {w: measure(systems, w, args, config, device) for w in ("dense", "half", "rolebench")}
    print(", ".join(f"{k} {v:.0f}" if isinstance(v, float) else f"{k} {v}" for k, v in conditions.items()) + "\n")
    print("| workload | system | tokens/s | x peft | x official | of the limit | peak GiB |\n" + "| --- " * 7 + "|")
    for workload, result in results.items():
        for name, r in result.items():
            ratios = [f"{r['tokens_per_s'] / result[other]['tokens_per_s']:.2f}" if other in result else "-"
                      for other in ("peft", "official")]
            memory = f"{r['peak_gib']:.1f}" if r["peak_gib"] else "-"
            print(f"| {workload} | {name} | {r['tokens_per_s']:.0f} | {' | '.join(ratios)} | "
                  f"{r['tokens_per_s'] / limit:.2f} | {memory} |")
    if args.out:
        with open(args.out, "w") as file:
            json.dump({"conditions": conditions, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
