"""Eq. 5-8 against plain loops in float64."""
import math

import pytest
import torch
import torch.nn.functional as F

from batches import contrast_pairs
from data import Example
from losses import (
    ContrastiveProjections,
    hyper_contrastive_loss,
    lambda_at,
    pool_response,
    response_cross_entropy,
    total_loss,
)


def loops(z_r, z_t, roles, tau):
    """Eq. 7 literally, then averaged over I."""
    def sim(p, q):
        return sum(a * b for a, b in zip(p, q)) / math.sqrt(sum(a * a for a in p) * sum(b * b for b in q))
    total = 0.0
    for i in range(len(roles)):
        positives = [p for p in range(len(roles)) if roles[p] == roles[i]]
        denominator = sum(math.exp(sim(z_r[i], z_t[j]) / tau) for j in range(len(roles)))
        total += -1 / len(positives) * sum(math.log(math.exp(sim(z_r[i], z_t[p]) / tau) / denominator) for p in positives)
    return total / len(roles)


@pytest.mark.parametrize("roles", [[0, 1, 2, 0, 1, 0], [4, 4, 4], [0, 1], [3], [2, 0, 0, 1, 2, 2, 1, 0, 2]])
@pytest.mark.parametrize("tau", [0.1, 0.7])
def test_equation_seven(roles, tau):
    z_r, z_t = torch.randn(2, len(roles), 5, dtype=torch.float64)
    ours = hyper_contrastive_loss(z_r, z_t, torch.tensor(roles), tau)
    assert ours.item() == pytest.approx(loops(z_r.tolist(), z_t.tolist(), roles, tau), rel=1e-10)
    swapped = hyper_contrastive_loss(z_r, z_t, torch.tensor(roles), tau, anchor="response")
    assert swapped.item() == pytest.approx(loops(z_t.tolist(), z_r.tolist(), roles, tau), rel=1e-10)


def test_known_values_of_equation_seven():
    same = torch.ones(6, 4)
    assert hyper_contrastive_loss(same, same * 3, torch.tensor([0, 1, 2, 0, 1, 2])).item() == pytest.approx(math.log(6))
    z_t = torch.randn(4, 3, dtype=torch.float64)
    z_r = torch.randn(1, 3, dtype=torch.float64).expand(4, 3).clone().requires_grad_()    # one role: all role embeddings are one
    loss = hyper_contrastive_loss(z_r, z_t, torch.zeros(4, dtype=torch.long), anchor="response")
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4)) and z_r.grad.abs().max() < 1e-6
    roles = torch.tensor([0, 1, 0, 1])                               # the defaults are the authors' tau and the paper's anchor
    other = torch.randn(4, 3, dtype=torch.float64)
    assert hyper_contrastive_loss(other, z_t, roles) == hyper_contrastive_loss(other, z_t, roles, tau=0.1, anchor="role")
    for wrong in ((same, same, torch.zeros(5)), (same, same[:, :3], torch.zeros(6))):
        with pytest.raises(ValueError, match="expected"):
            hyper_contrastive_loss(*wrong)


def test_the_floor_in_the_log_is_the_least_that_equation_seven_can_be():
    """At a low temperature, with every role's projections at one place and orthogonal to the others', the loss is the floor; no other
    projections are below it. In batches of two sizes: the mean of both."""
    batches = [[3, 1, 3, 3, 0, 1], [2, 2, 0]]
    logged = contrast_pairs([[Example([1, 2], 1, role) for role in roles] for roles in batches])["floor"]
    floors = []
    for roles in map(torch.tensor, batches):
        z = F.one_hot(roles, 4).double()
        floors.append(hyper_contrastive_loss(z, z, roles, tau=0.01).item())
        tried = [hyper_contrastive_loss(*torch.randn(2, len(roles), 4, dtype=torch.float64), roles, tau=0.01).item() for _ in range(50)]
        assert min(tried) > floors[-1]
    assert logged == pytest.approx(sum(floors) / 2, abs=1e-4) and logged > 0.5


def test_gradient_of_equation_seven():
    z_r, z_t = (torch.randn(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    roles = torch.tensor([0, 1, 2, 0, 1, 0])
    assert torch.autograd.gradcheck(lambda a, b: hyper_contrastive_loss(a, b, roles), (z_r, z_t))


def test_equation_five_is_two_affine_maps_and_starts_small():
    p = ContrastiveProjections(6, 48)
    e_c, e_t = torch.randn(3, 6), torch.randn(3, 48)
    z_r, z_t = p(e_c, e_t)
    torch.testing.assert_close(z_r, e_c @ p.W_r.weight.t() + p.W_r.bias)
    torch.testing.assert_close(z_t, e_t @ p.W_t.weight.t() + p.W_t.bias)
    assert z_t.shape == (3, 6) and 0.01 < p.W_t.weight.std() < 0.03 and p.W_t.bias.abs().max() == 0


@pytest.mark.parametrize("at_once", [10, 7 * 50, 10 ** 6])      # logits in memory: one row's, seven rows', all
def test_cross_entropy_and_its_gradient_equal_torchs(at_once, monkeypatch):
    monkeypatch.setattr("losses.LOGITS_AT_ONCE", at_once)
    hidden = torch.randn(19, 6, dtype=torch.float64, requires_grad=True)
    head, targets = torch.randn(50, 6, dtype=torch.float64), torch.randint(50, (19,))
    ours = response_cross_entropy(hidden, head, targets)
    mine, = torch.autograd.grad(ours * 0.3, hidden)
    theirs = F.cross_entropy(hidden @ head.t(), targets, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(mine, torch.autograd.grad(theirs * 0.3, hidden)[0])


@pytest.mark.parametrize("at_once, rows", [(10, [1] * 5), (100, [2, 2, 1]), (149, [2, 2, 1]), (10 ** 6, [5])])
def test_no_more_logits_at_a_time_than_the_limit_unless_a_row_has_more(at_once, rows, monkeypatch):
    seen = []
    log_softmax = torch.Tensor.log_softmax

    def counting(logits, dim):
        seen.append(len(logits))
        return log_softmax(logits, dim)
    monkeypatch.setattr("losses.LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(torch.Tensor, "log_softmax", counting)
    response_cross_entropy(torch.randn(5, 6), torch.randn(50, 6), torch.randint(50, (5,)))
    assert seen == rows


def test_pooling_is_a_mean_per_row():
    hidden = torch.randn(10, 4)
    pooled = pool_response(hidden, torch.tensor([1, 7, 8, 9]), torch.tensor([0, 1, 1, 1]), 2)
    torch.testing.assert_close(pooled, torch.stack((hidden[1], hidden[7:10].mean(0))))


@pytest.mark.parametrize("epoch, start, total, expected", [
    (0.0, 1, 3, 0.0), (1.0, 1, 3, 0.0), (1.5, 1, 3, 0.075), (2.0, 1, 3, 0.15), (3.0, 1, 3, 0.3), (9.0, 1, 3, 0.3),
    (0.5, 1, 1, 0.0), (0.5, 2, 1, 0.0)])
def test_equation_eight_line(epoch, start, total, expected):
    assert lambda_at(epoch, start, total, 0.0, 0.3) == pytest.approx(expected)


def test_equation_eight_cosine_and_minimum_and_equation_six():
    # values of the authors' Qwen ramp: 5 epochs from 0.3
    for epoch, expected in ((1, 0.016), (2, 0.087), (2.65, 0.15), (5, 0.3)):
        assert lambda_at(epoch, 0.3, 5, 0.0, 0.3, "cosine") == pytest.approx(expected, abs=6e-4)
    assert lambda_at(0.5, 0.25, 0.75, 0.0, 0.3) == pytest.approx(0.15)                         # a ramp shorter than an epoch
    assert lambda_at(0, 1, 3, 0.1, 0.3) == pytest.approx(0.1) and lambda_at(2, 1, 3, 0.1, 0.3) == pytest.approx(0.2)
    assert total_loss(2.0, 3.0, 0.1) == pytest.approx(2.3)
