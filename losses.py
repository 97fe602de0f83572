"""The loss (Eq. 5-8): cross-entropy of the response, and the hyper-contrastive loss that tells roles apart.

    L = CE + lambda * L_cl                                                   Eq. 6
B samples of a batch (the set I of Eq. 7), N supervised tokens, C model width, V vocabulary, d_z width of z_r and z_t.
The paper writes sums over tokens and over samples. Here both are means, as in the authors' code: with sums, the same
lambda would weigh the two terms differently for long answers and for short ones. Softmax and sums are in fp32, in nats.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

LOGITS_AT_ONCE = 2 ** 25                                                 # 128 MiB in fp32


class ContrastiveProjections(nn.Module):
    """Eq. 5: role embedding (d_c) and response representation (C) into one space of d_z numbers."""
    def __init__(self, role_dim, width):
        super().__init__()
        self.W_r = nn.Linear(role_dim, role_dim)                         # d_z is d_c, as in the authors' code
        self.W_t = nn.Linear(width, role_dim)
        for linear in (self.W_r, self.W_t):                              # the paper gives no init; this is the authors'
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, e_c, e_t):
        """e_c: (B, d_c), e_t: (B, C). Returns z_r and z_t, (B, d_z) each."""
        return self.W_r(e_c), self.W_t(e_t)                              # Eq. 5


def pool_response(hidden_states, positions, rows, batch_size):
    """e_t of Eq. 5: the mean of the hidden states that represent each row's response (usually one: the last token's).

    hidden_states: (B * T, C); positions: (P,) indices into it; rows: (P,) the row of the batch that each belongs to.
    Returns (B, C) in fp32.
    """
    chosen = hidden_states[positions].to(at_least_fp32(hidden_states))   # (P, C)
    count = chosen.new_zeros(batch_size, 1).index_add(0, rows, chosen.new_ones(len(rows), 1))
    total = chosen.new_zeros(batch_size, hidden_states.size(-1)).index_add(0, rows, chosen)
    return total / count                                                 # (B, C)


def at_least_fp32(x):
    """fp32, or the tensor's own dtype if that is wider: sums in half precision lose too much."""
    return torch.promote_types(x.dtype, torch.float32)


def response_cross_entropy(hidden_states, lm_head, targets):
    """First term of Eq. 6, *summed* over N supervised tokens; the caller divides by the tokens of its whole step.

    hidden_states: (N, C), only those that predict a supervised token; lm_head: (V, C), frozen; targets: (N,).
    Returns a scalar in nats.
    """
    return ChunkedCrossEntropy.apply(hidden_states, lm_head, targets)


class ChunkedCrossEntropy(torch.autograd.Function):
    """-sum log softmax(h W^T)[target], with only a slice of the (N, V) logits in memory at a time.

    A vocabulary of 152k is 0.6 MB of fp32 logits per token. The head is frozen, so only h needs a gradient,
    (softmax - onehot) W, and it is computed while the slice's logits are in memory: backward recomputes nothing.
    """
    @staticmethod
    def forward(ctx, hidden_states, lm_head, targets):
        loss = torch.zeros((), device=hidden_states.device, dtype=at_least_fp32(hidden_states))
        grad = torch.empty_like(hidden_states)
        tokens = max(1, LOGITS_AT_ONCE // len(lm_head))

        for h, t, g in zip(hidden_states.split(tokens), targets.split(tokens), grad.split(tokens)):
            log_p = (h @ lm_head.t()).to(loss.dtype).log_softmax(-1)     # (tokens, V)
            loss -= log_p.gather(1, t[:, None]).sum()

            if ctx.needs_input_grad[0]:
                p = log_p.exp_()                                         # softmax ...
                p.scatter_add_(1, t[:, None], p.new_full((len(t), 1), -1.0))     # ... - onehot
                torch.mm(p.to(h.dtype), lm_head, out=g)

        ctx.save_for_backward(grad)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        grad, = ctx.saved_tensors
        grad = (grad.to(upstream.dtype) * upstream).to(grad.dtype)       # a GPU would round upstream to grad's dtype
        return grad, None, None


def hyper_contrastive_loss(z_r, z_t, roles, tau=0.1, anchor="role"):
    """Eq. 7, averaged over the batch I.

    z_r, z_t: (B, d_z) role and response projections at any scale (cosine is taken here); roles: (B,) ids.
    anchor: "role" as in the paper (each role against all responses) or "response" as in the authors' code (the
    transpose). Returns a scalar in nats: log B when all z are equal. A sample is its own positive, so |P(i)| >= 1.
    With one role in the batch there is no negative: the "response" anchor then gives log B and no gradient at all.
    Raises ValueError unless roles is (B,).
    """
    if roles.shape != z_r.shape[:1] or z_r.shape != z_t.shape:
        raise ValueError(f"z_r {tuple(z_r.shape)}, z_t {tuple(z_t.shape)}, roles {tuple(roles.shape)}: "
                         f"expected (B, d_z), (B, d_z), (B,)")
    sim = F.normalize(z_r, dim=-1) @ F.normalize(z_t, dim=-1).t() / tau  # (B, B): [i, j] = sim(z_r_i, z_t_j) / tau
    if anchor == "response":
        sim = sim.t()

    log_p = sim.log_softmax(-1)
    positive = (roles[:, None] == roles).to(log_p)                       # (B, B): j is in P(i)
    return -((log_p * positive).sum(1) / positive.sum(1)).mean()         # Eq. 7


def total_loss(cross_entropy, contrastive, lam):
    """Eq. 6, both terms as means."""
    return cross_entropy + lam * contrastive                             # Eq. 6


def lambda_at(epoch, start, total, lam_min, lam_max, schedule="linear"):
    """lambda at a (fractional) epoch: lam_min up to `start` (ep_st), then a ramp to lam_max at `total` (ep_to).

    schedule: "linear" as in the paper, or "cosine", (1 - cos(pi * ramp)) / 2, as in the authors' Qwen code.
    """
    duration = max(total - start, 1e-9)                                  # start >= total: no step is in the ramp
    ramp = max(0.0, (epoch - start) / duration)
    ramp = min(1.0, ramp)                                                # no more after ep_to
    if schedule == "cosine":
        ramp = (1 - math.cos(math.pi * ramp)) / 2
    return lam_min + (lam_max - lam_min) * ramp                          # Eq. 8
