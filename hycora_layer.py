"""Hyper-Half LoRA (Eq. 4) and the Hyper Model: a frozen backbone whose linears speak for a role.

    out = W_0 x + alpha / r * B A x

The methods that the paper compares differ only in where A and B come from:
    shared  one trainable matrix for all roles
    role    one trainable matrix for each role
    hyper   generated for the role by the hyper-network
    gated   one trainable block for each role, and a role speaks through all of them, weighed by a gate (Neeko)
B batch, T tokens, R distinct roles of the batch, r rank, d_in and d_out widths of the linear.
"""
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hyper import HyperNetwork, lookup
from losses import ContrastiveProjections

METHODS = {                             # source of A, source of B
    "hycora": ("hyper", "shared"),      # the paper's: Rsp A & Mrs B
    "lora": ("shared", "shared"),       # RoleLLM: the role is told in the prompt
    "ind-lora": ("role", "role"),
    "neeko": ("gated", "gated"),
    "rsp-a-rsp-b": ("hyper", "hyper"),
    "mrs-a-rsp-b": ("shared", "hyper"),
}


ROLE_VECTOR = 1024                      # width of the fixed role vectors that Neeko's gates read


@dataclass(frozen=True)
class AdapterConfig:
    """What a Hyper Model is made of; the defaults are the authors' code's for 7B backbones."""
    method: str = "hycora"
    num_roles: int = 1
    rank: int = 8                       # r
    alpha: float = 32.0
    adapter_dropout: float = 0.1        # on x, before A; not in the paper
    targets: tuple[str, ...] = ()       # kinds of linear to adapt; empty: all in the blocks
    role_dim: int = 128                 # d_c
    layer_dim: int = 128                # d_l
    hidden_dim: int = 512               # d_h
    num_blocks: int = 2                 # N
    head_rank: int = 32                 # k
    norm_input: bool = True
    norm_output: bool = True


class AdaptedLinear(nn.Module):
    """A frozen linear with a low-rank detour, taken while somebody speaks (see `HyperModel.speaking_as`).

    Init: A as in LoRA, uniform within 1 / sqrt(d_in); B zero, so that the output is the backbone's. A generated half
    has no parameter here. Shapes are peft's, A (r, d_in) and B (d_out, r), with a role axis before if one per role.
    Neeko's gate starts as a linear does.
    """
    def __init__(self, base, sources, c):
        super().__init__()
        self.base, self.scale, self.dropout = base, c.alpha / c.rank, c.adapter_dropout
        self.shapes = {"A": (c.rank, base.in_features), "B": (base.out_features, c.rank)}
        for half, source in zip("AB", sources):
            if source == "hyper":
                self.register_parameter(half, None)
                continue
            shape = self.shapes[half] if source == "shared" else (c.num_roles, *self.shapes[half])
            weight = torch.zeros(shape, device=base.weight.device)
            if half == "A":
                nn.init.uniform_(weight, -base.in_features ** -0.5, base.in_features ** -0.5)
            self.register_parameter(half, nn.Parameter(weight))
        if "gated" in sources:
            self.gate = nn.Parameter(torch.empty(c.num_roles, ROLE_VECTOR, device=base.weight.device))
            nn.init.uniform_(self.gate, -ROLE_VECTOR ** -0.5, ROLE_VECTOR ** -0.5)
        self.voice = None               # (A, B) of whoever speaks, with a leading batch axis where rows differ

    def forward(self, x):
        if self.voice is None:
            return self.base(x)
        A, B = self.voice
        low = F.dropout(x, self.dropout, self.training) @ A.mT           # (B, T, r)
        if B.dim() == 3:                                                 # each row its own B
            return self.base(x).baddbmm_(low, B.mT, alpha=self.scale)    # Eq. 4: (B, T, d_out), added in one pass
        out = self.base(x.flatten(0, -2))                                # one B for all rows: the same, B * T at a time
        return out.addmm_(low.flatten(0, -2), B.mT, alpha=self.scale).unflatten(0, x.shape[:-1])


class HyperModel(nn.Module):
    """The paper's Hyper Model: backbone + adapters + contrastive projections. All but the backbone trains, in fp32.

    Any backbone will do that has `layers`, `hidden`, `lm_head`, `dtype`, `device` and `config.hidden_size`.
    """
    def __init__(self, backbone, config):
        """Adapts `backbone` in place. Raises ValueError for an unknown method or target."""
        super().__init__()
        if config.method not in METHODS:
            raise ValueError(f"method is {config.method!r}; choose one of {', '.join(METHODS)}")
        self.config, self.backbone = config, backbone.requires_grad_(False)
        sources = METHODS[config.method]
        self.kinds = {}                                                  # {kind: [AdaptedLinear, ...]} in layer order
        for parent in list(backbone.layers.modules()):
            for kind, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and (not config.targets or kind in config.targets):
                    setattr(parent, kind, AdaptedLinear(child, sources, config))
                    self.kinds.setdefault(kind, []).append(getattr(parent, kind))
        if lost := set(config.targets) - set(self.kinds):
            raise ValueError(f"targets {sorted(lost)} are not linears of this backbone's blocks")
        if "gated" in sources:          # Neeko takes an encoder's vector of the role's profile; here random, length 1
            fixed = torch.randn(config.num_roles, ROLE_VECTOR, generator=torch.Generator().manual_seed(0))
            self.register_buffer("role_vectors", F.normalize(fixed, dim=-1).to(backbone.device), persistent=False)
        self.hyper = self.projections = None
        if "hyper" in sources:
            halves = [half for half, source in zip("AB", sources) if source == "hyper"]
            kinds = {kind: (len(linears), {half: linears[0].shapes[half] for half in halves})
                     for kind, linears in self.kinds.items()}
            with torch.device(backbone.device):
                self.hyper = HyperNetwork(config.num_roles, kinds, config.role_dim, config.layer_dim, config.hidden_dim,
                                          config.num_blocks, config.head_rank, config.norm_input, config.norm_output)
                self.projections = ContrastiveProjections(config.role_dim, backbone.config.hidden_size)

    @contextmanager
    def speaking_as(self, role_ids):
        """Within this context row b of a batch is spoken by role_ids[b]; role_ids: (B,), any roles beside one another,
        or (B, num_roles), weights of a mixture for each row.

        Here, and nowhere else, the matrices are made: once for the distinct roles and all layers. Autocast to the
        backbone's dtype covers what happens inside. With activation checkpointing the backward pass belongs inside too.
        """
        device, dtype = self.backbone.device, self.backbone.dtype
        roles, slots = role_ids.cpu().unique(return_inverse=True, dim=0)         # on the CPU: no step waits for a count
        alone, rows = len(roles) == 1, F.one_hot(slots).to(device, non_blocking=True)               # (B, R)
        roles = roles.to(device, non_blocking=True)

        def pick(m):                                                     # (R, ...) -> (B, ...), or (...) for all rows
            if alone:
                return m[0]
            return (rows.to(m) @ m.flatten(1)).unflatten(1, m.shape[1:])     # m[slots], with a repeatable backward pass
        with torch.autocast(device.type, dtype, enabled=dtype not in (torch.float32, torch.float64)):
            try:
                made = self.hyper(roles) if self.hyper is not None else {}
                for kind, linears in self.kinds.items():
                    halves = [self.matrices(half, source, linears, made.get(kind), roles, pick)
                              for half, source in zip("AB", METHODS[self.config.method])]
                    for linear, *voice in zip(linears, *halves):
                        linear.voice = [m.to(dtype) for m in voice]
                yield
            finally:
                for linear in (linear for linears in self.kinds.values() for linear in linears):
                    linear.voice = None

    def matrices(self, half, source, linears, made, roles, pick):
        """One half of the voices of a kind's n linears: n of (rows, columns), (B, rows, columns) if roles differ."""
        if source == "hyper":
            return pick(made[half]).unbind(-3)                           # (R, n, rows, columns) before
        weights = [getattr(linear, half) for linear in linears]
        if source == "shared":
            return weights
        if source == "role":
            return [pick(lookup(w, roles)) for w in weights]
        if half == "B":                                                  # gated: all blocks side by side ...
            return [w.transpose(0, 1).flatten(1) for w in weights]       # (d_out, blocks * r)
        vectors = lookup(self.role_vectors, roles)                       # (R, 1024)
        gates = [(vectors @ linear.gate.t()).softmax(-1) for linear in linears]                       # (R, blocks)
        return [pick((g[..., None, None] * w).flatten(1, 2)) for g, w in zip(gates, weights)]         # ... weighed in A

    def forward(self, input_ids, role_ids):
        """Logits (B, T, vocab) of input_ids (B, T), row b spoken by role_ids[b]."""
        with self.speaking_as(role_ids):
            return self.backbone(input_ids)

    def project(self, role_ids, e_t):
        """z_r and z_t of Eq. 5 in fp32, (B, d_z) each, from role ids (B,) and response representations (B, C)."""
        with torch.autocast(e_t.device.type, enabled=False):
            return self.projections(self.hyper.role_embedding(role_ids.to(e_t.device, non_blocking=True)), e_t)

    def trainable(self):
        """{name: parameter} of all that trains."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def describe(self):
        """What is adapted, as lines of text: kind, count, shape, where A and B come from, trainable numbers."""
        def count(modules):
            return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
        A, B = METHODS[self.config.method]
        columns = "{:<18}{:>8}  {:<14}{:<18}{:<18}{:>12}"
        lines = [columns.format("adapted", "linears", "W_0", f"A: {A}", f"B: {B}", "trainable")]
        for kind, linears in self.kinds.items():
            heads = [h for name, h in self.hyper.heads.items() if name[:-2] == kind] if self.hyper is not None else []
            shapes = [" x ".join(map(str, s)) for s in (linears[0].base.weight.shape, *linears[0].shapes.values())]
            lines.append(columns.format(kind, len(linears), *shapes, f"{count(linears) + count(heads):,}"))
        rest = {"frozen, " + str(self.backbone.dtype)[6:]: sum(p.numel() for p in self.parameters()) - count([self])}
        if self.hyper is not None:
            rest |= {"encoder of the hyper-network": count([self.hyper]) - count(self.hyper.heads.values()),
                     "contrastive projections": count([self.projections])}
        rest |= {"trainable in all, fp32": count([self])}
        return "\n".join(lines + [f"{name:<76}{n:>12,}" for name, n in rest.items()])

    def save(self, folder):
        """Writes the trainable tensors, and only those, to folder/adapter.safetensors."""
        state = {name: p.detach().cpu().contiguous() for name, p in self.trainable().items()}
        path = Path(folder) / "adapter.safetensors"
        save_file(state, f"{path}.tmp", metadata={"format": "pt", "method": self.config.method})
        os.replace(f"{path}.tmp", path)                                  # the old one stays whole until the new one is

    def load(self, folder):
        """Reads what `save` wrote; ValueError unless names and shapes are exactly this model's."""
        path = Path(folder) / "adapter.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: has this run finished?")
        try:
            state = load_file(path)
        except SafetensorError as e:
            raise ValueError(f"{path} is broken: {e}") from None
        self.load_trainable(state, path)
        return self

    @torch.no_grad()
    def load_trainable(self, state, origin):
        """Copies {name: tensor} into the trainable parameters; ValueError names `origin` if it is another model's."""
        mine = self.trainable()
        wrong = [n for n in mine.keys() | state.keys()
                 if n not in mine or n not in state or mine[n].shape != state[n].shape]
        if wrong:
            raise ValueError(f"{origin} belongs to another model: {len(wrong)} tensors differ in name or shape, "
                             f"such as {sorted(wrong)[0]}")
        for name, p in mine.items():
            p.copy_(state[name])

