"""Hyper-Half LoRA (Eq. 4) and the Hyper Model: a frozen backbone whose linears are adapted to a role.

    out = W_0 x + alpha / r * B A x

The methods that the paper compares differ only in the source of A and B:
    shared  one trainable matrix for all roles
    role    one trainable matrix per role
    hyper   generated for the role by the hyper-network
    gated   one trainable block per role; every role uses all blocks, weighted by a gate (Neeko)

B batch, T tokens, R distinct roles of the batch, n linears of one kind, r rank, d_in and d_out widths of a linear.
"""
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F

from files import FileError, read_trained, write_tensors
from hyper import HyperNetwork, lookup
from losses import ContrastiveProjections

METHODS = {                             # source of A, source of B
    "hycora": ("hyper", "shared"),      # the paper's: Rsp A & Mrs B
    "lora": ("shared", "shared"),       # RoleLLM: the prompt names the role
    "ind-lora": ("role", "role"),
    "neeko": ("gated", "gated"),
    "rsp-a-rsp-b": ("hyper", "hyper"),
    "mrs-a-rsp-b": ("shared", "hyper"),
    "ind-a-mrs-b": ("role", "shared"),  # not the paper's: what does generating A add to sharing B?
}

GATE_INPUT_DIM = 1024                   # width of the fixed role vectors that Neeko's gates read
Size = Annotated[int, 1, 10 ** 6]       # type, least, most: config.py checks the number

@dataclass(frozen=True)
class AdapterConfig:
    """The settings of a Hyper Model; the defaults are close to those of the authors' code for 7B backbones."""
    method: Literal[tuple(METHODS)] = "hycora"
    num_roles: Size = 1
    rank: Size = 8                      # r
    alpha: Annotated[float, 1e-6, 10 ** 6] = 32.0  # the LoRA branch is scaled by alpha / rank
    adapter_dropout: Annotated[float, 0, 0.99] = 0.1  # on x, before A; not in the paper
    target_modules: tuple[str, ...] = ()  # kinds of linear to adapt, such as q_proj; empty: all in the blocks
    role_dim: Size = 128                # d_c
    layer_dim: Size = 128               # d_l
    hidden_dim: Size = 512              # d_h
    num_blocks: Annotated[int, 0, 1000] = 2  # N
    head_rank: Size = 32                # k
    norm_input: bool = True             # LayerNorm on the input of Eq. 1; not in the paper
    norm_output: bool = True            # LayerNorm on h_N; not in the paper


# ------------------------------------------------------------------------------------------------ the adapted linear
class AdaptedLinear(nn.Module):
    """A frozen linear with a LoRA branch, which is active inside `HyperModel.active_roles`.

    Shapes are peft's: A (r, d_in) and B (d_out, r), with a role axis in front where every role has its own.
    A factor that the hyper-network generates has no parameter here.
    Init: A as in LoRA, uniform within 1 / sqrt(d_in); B zero, so that the output starts as the backbone's; the gate
    like a linear's weight.
    """
    def __init__(self, base, sources, config):
        super().__init__()
        self.base = base
        self.scale = config.alpha / config.rank
        self.dropout = config.adapter_dropout
        self.shapes = {"A": (config.rank, base.in_features), "B": (base.out_features, config.rank)}
        self.lora_weights = None        # (A, B) of the active roles, with a batch axis in front where rows differ

        for factor, source in zip("AB", sources):
            if source == "hyper":
                continue
            shape = self.shapes[factor]
            if source != "shared":
                shape = (config.num_roles, *shape)
            weight = torch.zeros(shape, device=base.weight.device)
            if factor == "A":
                bound = base.in_features ** -0.5
                nn.init.uniform_(weight, -bound, bound)
            self.register_parameter(factor, nn.Parameter(weight))

        if "gated" in sources:
            bound = GATE_INPUT_DIM ** -0.5
            self.gate = nn.Parameter(torch.empty(config.num_roles, GATE_INPUT_DIM, device=base.weight.device))
            nn.init.uniform_(self.gate, -bound, bound)

    def forward(self, x):
        if self.lora_weights is None:
            return self.base(x)
        W_0 = self.base
        A, B = self.lora_weights
        A_x = dropout(x, self.dropout, self.training) @ A.mT             # (B, T, d_in) -> (B, T, r)
        return add_products(W_0, x, self.scale, B, A_x)                  # Eq. 4: W_0 x + alpha/r * B A x


def dropout(x, p, training):
    """F.dropout. On a CPU in half of its time: 16 random bits decide about an element, so that four share an integer,
    and p is rounded to a multiple of 2^-16."""
    if not training or p == 0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    integers = torch.empty(x.numel() // 4 + 1, dtype=torch.int64, device="cpu").random_(-2 ** 63, None)
    bits = integers.view(torch.int16)[:x.numel()].view(x.shape)
    kept = bits >= round(p * 2 ** 16) - 2 ** 15                          # the bits are uniform in [-2^15, 2^15)
    return x * (kept * (1 / (1 - p))).to(x.dtype)


def add_products(W_0, x, scale, B, A_x):
    """W_0 x + scale * B A_x, where the kernel that computes the second product adds it to the first.

    W_0: a frozen linear; x: (B, T, d_in); A_x: (B, T, r); B: (d_out, r), or (B, d_out, r) where each row of the batch
    has its own. Returns (B, T, d_out).
    """
    if B.dim() == 3:
        return W_0(x).baddbmm_(A_x, B.mT, alpha=scale)                  # (B, T, d_out)

    # one B for all: products of (B * T, ...); flattened first, as adding into a view would copy its gradient
    shape = x.shape[:-1]
    x = x.flatten(0, -2)
    A_x = A_x.flatten(0, -2)
    if not torch.is_grad_enabled():
        return W_0(x).addmm_(A_x, B.mT, alpha=scale).unflatten(0, shape)

    # in training W_0 x comes last: it keeps nothing for the backward pass, so that the recomputation of a checkpointed
    # block, which ends at the last tensor that was kept, ends before its last and largest product
    return F.linear(scale * A_x, B, W_0.bias).addmm_(x, W_0.weight.t()).unflatten(0, shape)


# ------------------------------------------------------------------------------------------- where A and B come from
class ActiveRoles:
    """The roles of the rows of a batch.

    role_ids: (B,) ids in any mixture, or (B, num_roles) weights that blend roles, for each row.
    roles: the R distinct ones, (R,) or (R, num_roles); row_to_role: (B, R) one-hot, which of them each row uses.
    """
    def __init__(self, role_ids, num_roles, device):
        # on the host: no step waits for R; `unique` sorts ids
        roles, index = torch.as_tensor(role_ids).cpu().unique(return_inverse=True, dim=0)
        if not roles.is_floating_point() and not 0 <= roles[0] <= roles[-1] < num_roles:
            raise ValueError(f"role ids {roles.tolist()}: the model has {num_roles} roles, from 0")
        self.roles = roles.to(device, non_blocking=True)
        self.row_to_role = F.one_hot(index).float().to(device, non_blocking=True)

    def per_row(self, weights):
        """(R, ...) -> (B, ...), or (...) if all rows have the same role. Equal to weights[index], as a product: its
        backward pass is repeatable, that of indexing is not."""
        if len(self.roles) == 1:
            return weights[0]
        return lookup(weights, self.row_to_role)


def gated_weights(linears, factor, active, gate_inputs):
    """Source "gated": one block per role, side by side: B is (d_out, blocks * r), and A is (blocks * r, d_in), each of
    its blocks weighted by the gate. So B A x is the gated sum of the blocks."""
    blocks = [getattr(linear, factor) for linear in linears]             # (blocks, r, d_in) or (blocks, d_out, r)
    if factor == "B":
        return [B.transpose(0, 1).flatten(1) for B in blocks]

    weights = []
    vectors = lookup(gate_inputs, active.roles)                          # (R, GATE_INPUT_DIM)
    for linear, A in zip(linears, blocks):
        gate = (vectors @ linear.gate.t()).softmax(-1)                   # (R, blocks)
        A = gate[..., None, None] * A                                    # (R, blocks, r, d_in)
        weights.append(active.per_row(A.flatten(1, 2)))
    return weights


# --------------------------------------------------------------------------------------------------- the Hyper Model
class HyperModel(nn.Module):
    """The paper's Hyper Model: backbone + adapters + contrastive projections. All but the backbone trains, in fp32.

    Any backbone works that can be called for logits and has `layers`, `hidden_states`, `dtype`, `device` and
    `config.hidden_size` (and `lm_head`, whose weight the losses read).
    """
    def __init__(self, backbone, config):
        """Adapts `backbone` in place. Raises ValueError for an unknown method or target module, or a second model."""
        super().__init__()
        if any(isinstance(module, AdaptedLinear) for module in backbone.modules()):
            raise ValueError("this backbone is adapted already: load another one for a second HyperModel")
        if config.method not in METHODS:
            raise ValueError(f"method is {config.method!r}; choose one of {', '.join(METHODS)}")
        self.config = config
        self.backbone = backbone.requires_grad_(False)
        self.adapted = self.adapt_linears()                              # {kind: [AdaptedLinear, ...]} in layer order
        self.hyper = None
        self.projections = None

        # Neeko's gates read an encoder's vector of the role's profile; here it is random, of length 1, and fixed
        if "gated" in self.sources.values():
            generator = torch.Generator().manual_seed(0)
            vectors = torch.randn(config.num_roles, GATE_INPUT_DIM, generator=generator)
            self.register_buffer("gate_inputs", F.normalize(vectors, dim=-1).to(backbone.device), persistent=False)

        if "hyper" in self.sources.values():
            with torch.device(backbone.device):
                self.hyper = self.hyper_network()
                self.projections = ContrastiveProjections(config.role_dim, backbone.config.hidden_size)

    @property
    def sources(self):
        """{"A": source, "B": source} of the method."""
        return dict(zip("AB", METHODS[self.config.method]))

    def adapt_linears(self):
        """Puts an AdaptedLinear in place of every linear of the blocks whose name is a target module."""
        wanted = self.config.target_modules
        adapted = {}
        for parent in list(self.backbone.layers.modules()):
            for kind, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and (not wanted or kind in wanted):
                    linear = AdaptedLinear(child, self.sources.values(), self.config)
                    setattr(parent, kind, linear)
                    adapted.setdefault(kind, []).append(linear)

        missing = sorted(set(wanted) - set(adapted))
        if missing:
            raise ValueError(f"target_modules {missing} are not linears of this backbone's blocks")
        return adapted

    def hyper_network(self):
        """The hyper-network that generates the factors whose source is "hyper"."""
        c = self.config
        generated = [factor for factor, source in self.sources.items() if source == "hyper"]
        shapes = {}
        for kind, linears in self.adapted.items():
            shapes[kind] = (len(linears), {factor: linears[0].shapes[factor] for factor in generated})
        return HyperNetwork(c.num_roles, shapes, c.role_dim, c.layer_dim, c.hidden_dim, c.num_blocks, c.head_rank,
                            c.norm_input, c.norm_output)

    @contextmanager
    def active_roles(self, role_ids):
        """Within this context row b of a batch has the role role_ids[b]. role_ids: (B,) ids in any mixture, or
        (B, num_roles) weights that blend roles; None: nothing is activated, the backbone runs as it is.

        The only place where A and B are made: once per context (a micro-batch, or a whole generation), for the
        distinct roles and all linears, from fp32 parameters into the backbone's dtype. With activation checkpointing
        the backward pass belongs inside as well. Contexts do not nest.
        """
        if role_ids is None:
            yield
            return

        device = self.backbone.device
        dtype = self.backbone.dtype
        active = ActiveRoles(role_ids, self.config.num_roles, device)
        try:
            with torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
                generated = {} if self.hyper is None else self.hyper(active.roles)
                for kind, linears in self.adapted.items():
                    A = self.lora_factor("A", linears, generated.get(kind), active)
                    B = self.lora_factor("B", linears, generated.get(kind), active)
                    for i, linear in enumerate(linears):
                        linear.lora_weights = (A[i].to(dtype), B[i].to(dtype))
            yield
        finally:
            for linear in self.adapted_linears():
                linear.lora_weights = None

    def lora_factor(self, factor, linears, generated, active):
        """A or B for each of the n linears of one kind: (rows, columns), or (B, rows, columns) where rows differ."""
        source = self.sources[factor]
        if source == "hyper":
            return active.per_row(generated[factor]).unbind(-3)          # the network's output holds all n
        if source == "gated":
            return gated_weights(linears, factor, active, self.gate_inputs)
        if source == "shared":
            weights = torch.stack([getattr(linear, factor) for linear in linears])
            return weights.to(self.backbone.dtype).unbind()              # cast together: one kernel, not n
        if source == "role":
            return [active.per_row(lookup(getattr(linear, factor), active.roles)) for linear in linears]
        raise ValueError(f"nothing makes the source {source!r} of {factor}: HyperModel.lora_factor")

    def adapted_linears(self):
        """Every AdaptedLinear, kind by kind."""
        return [linear for linears in self.adapted.values() for linear in linears]

    def forward(self, input_ids, role_ids):
        """Logits (B, T, vocab) of input_ids (B, T), where row b has the role role_ids[b]."""
        with self.active_roles(role_ids):
            return self.backbone(input_ids)

    @torch.no_grad()
    def read_by(self, reader, input_ids, role_ids):
        """Hidden states (B * T, C), without a gradient, of responses that their role does not read itself.

        reader: "other", the next role by id, which gives the role away just as well; "backbone", no role, so that e_t
        of Eq. 5 shows only what is in the text.
        """
        reader_ids = None if reader == "backbone" else (role_ids + 1) % self.config.num_roles
        with self.active_roles(reader_ids):
            return self.backbone.hidden_states(input_ids).flatten(0, 1)

    # ---------------------------------------------------------------------------------------------------- save and load
    def trainable(self):
        """{name: parameter} of all trainable parameters."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def save(self, folder):
        """Writes the trainable tensors, and only those, to folder/adapter.safetensors."""
        write_tensors(Path(folder) / "adapter.safetensors", self.trainable())

    def load(self, folder):
        """Reads what `save` wrote; ValueError unless names and shapes are exactly this model's."""
        path = Path(folder) / "adapter.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: has this run finished?")
        self.load_trainable(read_trained(path), path)
        return self

    @torch.no_grad()
    def load_trainable(self, state, origin):
        """Copies {name: tensor} into the trainable parameters; FileError names `origin` unless these are their names,
        shapes and types."""
        expected = {name: (p.shape, p.dtype) for name, p in self.trainable().items()}
        found = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
        if expected != found:
            differing = sorted(name for name, _ in expected.items() ^ found.items())
            raise FileError(f"{origin} belongs to another model: {len(set(differing))} tensors differ in name, shape "
                            f"or type, such as {differing[0]}")
        for name, p in self.trainable().items():
            p.copy_(state[name])
