"""The lightweight hyper-network (Eq. 1-3): from a role and a layer to a low-rank matrix.

    c, e_c (d_c): role id and embedding           R: distinct roles asked for at once
    l, e_l (d_l): layer id and embedding          L: adapted linears, n of them of one kind (q_proj, k_proj, ...)
    h (d_h): hidden state, after N residual blocks
    k: rank of the head's own factors D, U        r: rank of the LoRA matrices it makes

A layer id is one *adapted linear*, numbered kind by kind: the linears of a kind are neighbours and share a head.

Init (the paper gives none; this is the authors' code's):
    role and layer embeddings     N(0, 1), cut at 2
    every other weight, bias      Xavier-uniform, 0
    D and U of a head for A       then rescaled, so that A spreads like a Xavier-uniform linear: sqrt(2 / (d_in + r))
    U of a head for B             0: then B = 0, and the adapted model is the backbone
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class ResidualBlock(nn.Module):
    """Eq. 2. In print it lacks the skip that a residual block is named for; the authors' code has it, and a norm."""
    def __init__(self, d_h):
        super().__init__()
        self.norm = nn.LayerNorm(d_h)
        self.W_1, self.W_2 = nn.Linear(d_h, d_h), nn.Linear(d_h, d_h)

    def forward(self, h):
        return h + self.W_2(F.relu(self.W_1(self.norm(h))))              # Eq. 2: (R, L, d_h)


class Head(nn.Module):
    """Eq. 3: h to a matrix of `shape`, through k numbers, since one full W_A would be d_h x (r * d_in)."""
    def __init__(self, d_h, k, shape):
        super().__init__()
        self.shape, self.scale = shape, d_h ** -0.5                      # the scale is the authors' code's
        self.D, self.U = nn.Linear(d_h, k), nn.Linear(k, math.prod(shape))

    def forward(self, h):
        return (self.U(self.D(h)) * self.scale).unflatten(-1, self.shape)   # Eq. 3: (R, n, *shape)


def lookup(table, roles):
    """The rows of a table (num_roles, ...) for role ids (R,), or its mixtures for weights (R, num_roles): (R, ...)."""
    if not roles.is_floating_point():
        return table[roles]
    return (roles.to(table) @ table.flatten(1)).unflatten(1, table.shape[1:])


class HyperNetwork(nn.Module):
    """Generates the matrices of some roles for all adapted linears in one go.

    kinds: {kind: (n, {"A": (r, d_in), "B": (d_out, r)})}, with the halves that are to be generated.
    norm_input, norm_output: LayerNorms that the authors' code has and the paper's Eq. 1 has not.
    """
    def __init__(self, num_roles, kinds, role_dim=128, layer_dim=128, hidden_dim=512, num_blocks=2, head_rank=32,
                 norm_input=True, norm_output=True):
        super().__init__()
        self.kinds = kinds
        num_layers = sum(n for n, _ in kinds.values())
        self.role_embedding = nn.Embedding(num_roles, role_dim)
        self.layer_embedding = nn.Embedding(num_layers, layer_dim)
        self.norm_input = nn.LayerNorm(role_dim + layer_dim) if norm_input else nn.Identity()
        self.W_in = nn.Linear(role_dim + layer_dim, hidden_dim)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_dim) for _ in range(num_blocks))
        self.norm_output = nn.LayerNorm(hidden_dim) if norm_output else nn.Identity()
        self.heads = nn.ModuleDict({f"{kind}_{half}": Head(hidden_dim, head_rank, shape)
                                    for kind, (_, halves) in kinds.items() for half, shape in halves.items()})
        self.reset_parameters()

    def forward(self, roles):
        """roles: (R,) ids of distinct roles, or (R, num_roles) weights that mix them.

        Returns {kind: {half: (R, n, *shape)}}."""
        h = self.encode(lookup(self.role_embedding.weight, roles))       # e_c: (R, d_c)
        generated, first = {}, 0
        for kind, (n, halves) in self.kinds.items():
            generated[kind] = {half: self.heads[f"{kind}_{half}"](h[:, first:first + n]) for half in halves}
            first += n
        return generated

    def encode(self, e_c):
        """Eq. 1 and 2 for every layer id: (R, d_c) -> (R, L, d_h)."""
        e_l = self.layer_embedding.weight                                # (L, d_l)
        R, L = len(e_c), len(e_l)
        pair = torch.cat((e_c[:, None].expand(R, L, -1), e_l.expand(R, L, -1)), dim=-1)   # (R, L, d_c + d_l)
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
        probe = self.forward(torch.zeros(1, dtype=torch.long, device=self.W_in.weight.device))   # role 0, every layer
        for name, head in self.heads.items():
            kind, half = name.rsplit("_", 1)
            if half == "B":
                nn.init.zeros_(head.U.weight)
            else:
                r, d_in = head.shape
                factor = math.sqrt(2 / (d_in + r)) / probe[kind][half].std()
                head.D.weight.mul_(factor.sqrt())                        # half of the correction to each factor
                head.U.weight.mul_(factor.sqrt())
