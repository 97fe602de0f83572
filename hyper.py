"""The lightweight hyper-network (Eq. 1-3): from a role and a layer to a low-rank matrix.

    c, e_c (d_c): role id and embedding           R: distinct roles of one call
    l, e_l (d_l): layer id and embedding          L: adapted linears, n of them of one kind (q_proj, k_proj, ...)
    h (d_h): hidden state, after N residual blocks
    k: rank of the head's own factors D, U        r: rank of the LoRA matrices it generates

A layer id is one *adapted linear*, numbered kind by kind: the linears of a kind are neighbours and share a head.

Init (the paper gives none; all but the last row are the authors' code's):
    role and layer embeddings     N(0, 1), truncated at 2
    linear: weight, bias          Xavier-uniform, 0
    LayerNorm: weight, bias       1, 0
    D and U of a head for A       then rescaled to the spread of a Xavier-uniform linear, std(A) = sqrt(2 / (d_in + r))
    U of a head for B             0, so that B = 0 and the adapted model starts as the backbone
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class ResidualBlock(nn.Module):
    """Eq. 2. The printed equation has no skip connection; the authors' code has it, and a LayerNorm before W_1."""
    def __init__(self, d_h):
        super().__init__()
        self.norm = nn.LayerNorm(d_h)
        self.W_1 = nn.Linear(d_h, d_h)
        self.W_2 = nn.Linear(d_h, d_h)

    def forward(self, h):
        return h + self.W_2(F.relu(self.W_1(self.norm(h))))              # Eq. 2: (R, L, d_h)


class Head(nn.Module):
    """Eq. 3: h to a matrix of `shape`, through k numbers, since one full W_A would be d_h x (r * d_in)."""
    def __init__(self, d_h, k, shape):
        super().__init__()
        self.shape = shape
        self.scale = d_h ** -0.5                                         # not in the paper; the authors' code has it
        self.D = nn.Linear(d_h, k)
        self.U = nn.Linear(k, math.prod(shape))

    def forward(self, h):
        return (self.U(self.D(h)) * self.scale).unflatten(-1, self.shape)   # Eq. 3: (R, n, *shape)


def lookup(table, roles):
    """Rows of a table (num_roles, ...) for role ids (R,), or mixtures of them for weights (R, num_roles): (R, ...)."""
    if not roles.is_floating_point():
        return table[roles]
    return (roles.to(table) @ table.flatten(1)).unflatten(1, table.shape[1:])


class HyperNetwork(nn.Module):
    """Generates the LoRA factors of some roles for all adapted linears in one forward pass.

    kinds: {kind: (n, {"A": (r, d_in), "B": (d_out, r)})}, a kind of linear such as "q_proj", how many of it
    there are, and the LoRA factors to generate for it.
    norm_input, norm_output: LayerNorms of the authors' code, which the paper's Eq. 1 and 3 lack.
    """
    def __init__(self, num_roles, kinds, role_dim=128, layer_dim=128, hidden_dim=512, num_blocks=2,
                 head_rank=32, norm_input=True, norm_output=True):
        super().__init__()
        self.kinds = kinds
        num_layers = sum(n for n, _ in kinds.values())

        self.role_embedding = nn.Embedding(num_roles, role_dim)
        self.layer_embedding = nn.Embedding(num_layers, layer_dim)
        self.norm_input = nn.LayerNorm(role_dim + layer_dim) if norm_input else nn.Identity()
        self.W_in = nn.Linear(role_dim + layer_dim, hidden_dim)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_dim) for _ in range(num_blocks))
        self.norm_output = nn.LayerNorm(hidden_dim) if norm_output else nn.Identity()

        self.heads = nn.ModuleDict()
        for kind, (_, shapes) in kinds.items():
            for factor, shape in shapes.items():
                self.heads[f"{kind}_{factor}"] = Head(hidden_dim, head_rank, shape)
        self.reset_parameters()

    def forward(self, roles):
        """roles: (R,) ids of distinct roles, or (R, num_roles) weights that mix them.

        Returns {kind: {factor: (R, n, *shape)}}.
        """
        e_c = lookup(self.role_embedding.weight, roles)                  # (R, d_c)
        h = self.encode(e_c)                                             # (R, L, d_h)

        # each kind of linear has its own heads, and its layers are neighbours in h
        generated = {}
        first = 0
        for kind, (n, shapes) in self.kinds.items():
            h_kind = h[:, first:first + n]                               # (R, n, d_h)
            generated[kind] = {factor: self.heads[f"{kind}_{factor}"](h_kind) for factor in shapes}
            first += n
        return generated

    def encode(self, e_c):
        """Eq. 1 and 2 for every layer id: (R, d_c) -> (R, L, d_h)."""
        e_l = self.layer_embedding.weight                                # (L, d_l)
        R, L = len(e_c), len(e_l)

        # every role with every layer
        e_c = e_c[:, None].expand(R, L, -1)
        e_l = e_l.expand(R, L, -1)
        pair = torch.cat((e_c, e_l), dim=-1)                             # (R, L, d_c + d_l)

        h = F.relu(self.W_in(self.norm_input(pair)))                     # Eq. 1: (R, L, d_h)
        for block in self.blocks:
            h = block(h)
        return self.norm_output(h)

    @torch.no_grad()
    def reset_parameters(self):
        """The init of the module's docstring."""
        for table in (self.role_embedding, self.layer_embedding):
            nn.init.trunc_normal_(table.weight, std=1.0, a=-2.0, b=2.0)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

        # measure the spread of each head's output, for role 0 and every layer, and correct it
        role_0 = torch.zeros(1, dtype=torch.long, device=self.W_in.weight.device)
        generated = self.forward(role_0)
        for name, head in self.heads.items():
            kind, factor = name.rsplit("_", 1)
            if factor == "B":
                nn.init.zeros_(head.U.weight)
                continue
            r, d_in = head.shape
            spread = generated[kind][factor].std().clamp(min=1e-6)       # 0 if hidden_dim is 1: its LayerNorm gives 0
            correction = math.sqrt(2 / (d_in + r)) / spread
            head.D.weight.mul_(correction.sqrt())                        # D and U share the correction
            head.U.weight.mul_(correction.sqrt())
