"""Eq. 1-3 as plain float64 arithmetic, the init, and the closed form of the parameter count."""
import math

import pytest
import torch
from conftest import randomise

from hyper import HyperNetwork

KINDS = {"q_proj": (3, {"A": (4, 48)}), "down_proj": (3, {"A": (4, 80), "B": (48, 4)})}
DIMS = dict(role_dim=6, layer_dim=5, hidden_dim=16, num_blocks=2, head_rank=3)


def layer_norm(x, norm):
    if not isinstance(norm, torch.nn.LayerNorm):
        return x
    x = x - x.mean()
    return x / (x.square().mean() + 1e-5).sqrt() * norm.weight + norm.bias


def by_hand(net, role, layer, kind, factor):
    """Eq. 1-3 for one role and one layer, vector by vector."""
    x = torch.cat((net.role_embedding.weight[role], net.layer_embedding.weight[layer]))
    h = (net.W_in.weight @ layer_norm(x, net.norm_input) + net.W_in.bias).clamp(min=0)
    for block in net.blocks:
        inner = (block.W_1.weight @ layer_norm(h, block.norm) + block.W_1.bias).clamp(min=0)
        h = h + block.W_2.weight @ inner + block.W_2.bias
    h = layer_norm(h, net.norm_output)
    head = net.heads[f"{kind}_{factor}"]
    flat = head.U.weight @ (head.D.weight @ h + head.D.bias) + head.U.bias
    return flat.reshape(KINDS[kind][1][factor]) / math.sqrt(DIMS["hidden_dim"])


@pytest.mark.parametrize("norms", [True, False])      # False: the paper's literal Eq. 1 and 3
def test_equations_one_to_three(norms):
    net = randomise(HyperNetwork(7, KINDS, **DIMS, norm_input=norms, norm_output=norms).double())
    roles = torch.tensor([5, 0, 3])
    made = net(roles)
    for kind, first in (("q_proj", 0), ("down_proj", 3)):            # layer ids run kind by kind
        for factor, m in made[kind].items():
            assert m.shape == (3, 3, *KINDS[kind][1][factor])
            for r, role in enumerate(roles):
                for i in range(3):
                    torch.testing.assert_close(m[r, i], by_hand(net, role, first + i, kind, factor))


def test_init_is_the_table_of_the_docstring():
    net = HyperNetwork(200, {"x": (40, {"A": (8, 96), "B": (64, 8)}), "y": (40, {"A": (8, 256)})}, hidden_dim=64)
    for table in (net.role_embedding.weight, net.layer_embedding.weight):
        assert 1.9 < table.abs().max() <= 2 and 0.85 < table.std() < 0.91 and table.mean().abs() < 0.05      # N(0, 1) cut at 2: 0.88

    # every weight, as a share of Xavier's bound; D and U of a head have moved away from it together
    share = {}
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Linear):
            share[name] = module.weight.abs().max().item() / math.sqrt(6 / sum(module.weight.shape))
            assert not module.bias.any(), name
    assert all(0.95 < of_bound <= 1.0001 for name, of_bound in share.items() if not name.startswith("heads")) and len(share) == 5 + 6
    for head in ("heads.x_A", "heads.y_A"):
        assert share[f"{head}.D"] == pytest.approx(share[f"{head}.U"], rel=0.02) and abs(share[f"{head}.D"] - 1) > 0.05
    assert share["heads.x_B.U"] == 0 and 0.95 < share["heads.x_B.D"] <= 1

    # A as of a Xavier-uniform linear: exactly for role 0, about so for the others
    made = net(torch.arange(200))
    assert made["x"]["B"].abs().max() == 0
    for kind, d_in in (("x", 96), ("y", 256)):
        expected = math.sqrt(2 / (d_in + 8))
        assert made[kind]["A"][0].std().item() == pytest.approx(expected, rel=2e-6)
        assert 0.7 < made[kind]["A"].std() / expected < 1.4


def test_parameter_count_in_closed_form():
    net = HyperNetwork(7, KINDS, **DIMS)
    d_c, d_l, d_h, N, k, R, L = 6, 5, 16, 2, 3, 7, 6
    encoder = R * d_c + L * d_l + 2 * (d_c + d_l) + (d_c + d_l) * d_h + d_h + N * (2 * (d_h * d_h + d_h) + 2 * d_h) + 2 * d_h
    heads = sum(d_h * k + k + k * n + n for n in (4 * 48, 4 * 80, 48 * 4))
    assert sum(p.numel() for p in net.parameters()) == encoder + heads


def test_a_hidden_state_of_one_number_has_a_finite_init():
    """Its LayerNorm is 0, so that there is no spread to correct."""
    hyper = HyperNetwork(3, {"q_proj": (2, {"A": (4, 6)})}, role_dim=5, layer_dim=5, hidden_dim=1, head_rank=2)
    assert all(p.isfinite().all() for p in hyper.parameters())
