"""The training of tools.add_role: one role more for a loaded run, from a few lines, while the others stay.

The hyper-network with its embeddings trains on the new lines, and a penalty, `drift`, holds the other roles' matrices,
which are known, where they were (von Oswald et al. 2020, Continual learning with hypernetworks): no old data are
needed. Then the new role's matrices are known too, and the hyper-network settles: without the backbone, which makes
these steps cheap, it learns to generate the old matrices of the old roles and the new ones of the new role. B, which
all share, stays.
"""
import dataclasses
import math

import torch
from torch import nn
from tqdm import tqdm

import train
from batches import batch_order, collate
from config import KEYS, Config
from likelihood import reference_nll
from prepare import encode

SETTLE = 2                              # steps without the backbone for each step on the new lines
SETTLE_LR = 3e-3


def drift(model, before, roles):
    """How far the matrices of `roles` (ids) have moved from `before`, {kind: {factor: (R, n, rows, columns)}} of all R:
    mean square of the differences over that of the matrices."""
    now = model.hyper(roles)
    parts = []
    for kind, factors in before.items():
        for factor, matrices in factors.items():
            difference = (now[kind][factor] - matrices[roles]).square().mean()
            parts.append(difference / matrices.square().mean().clamp(min=1e-12))
    return torch.stack(parts).mean()


def with_role(config, role, profile):
    """`config` with one role more. ValueError where it is there already, in whatever case."""
    known = {name.casefold(): name for name in config["roles"]}
    if role.casefold() in known:
        raise ValueError(f"{config['out']} has a role {known[role.casefold()]!r} already")
    profiles = config["profiles"] | ({role: profile} if profile else {})
    return config | {"roles": config["roles"] | {role: len(config["roles"])}, "profiles": profiles}


def add_embedding(model, seed):
    """Gives the hyper-network one role more, by chance and as far from the others as they are from one another.

    From the mean of the others, which lies between them, what the new role learns moves them more. A second role that
    is added starts elsewhere than the first.
    """
    known = model.hyper.role_embedding.weight.detach()                                   # (R, d_c)
    generator = torch.Generator().manual_seed(seed + len(known))
    new = torch.empty(1, known.size(1))
    nn.init.trunc_normal_(new, std=1.0, a=-2.0, b=2.0, generator=generator)              # as in hyper.py
    e_c = torch.cat((known, new.to(known)))                                              # (R + 1, d_c)
    model.hyper.role_embedding = nn.Embedding.from_pretrained(e_c, freeze=False)
    model.config = dataclasses.replace(model.config, num_roles=len(e_c))


def drift_of_some(model, before):
    """`drift` of eight of the old roles, by chance: with many roles, all of them would take long."""
    device = model.backbone.device
    some = torch.randperm(model.config.num_roles - 1, device=device)[:8]
    return drift(model, before, some)


def settle(model, before, steps):
    """Trains the hyper-network alone: the others' matrices go back to `before`, while the new role's stay.

    The new role, the last, weighs as much as the others together.
    """
    new_role = torch.tensor([model.config.num_roles - 1], device=model.backbone.device)
    with torch.no_grad():
        now = model.hyper(new_role)
    known = {}
    for kind, factors in before.items():
        known[kind] = {factor: torch.cat((matrices, now[kind][factor])) for factor, matrices in factors.items()}

    optimizer = torch.optim.Adam(model.hyper.parameters(), lr=SETTLE_LR)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = SETTLE_LR * (1 - step / steps)
        loss = drift_of_some(model, known) + drift(model, known, new_role)
        loss.backward()
        optimizer.step()
        model.zero_grad()


class Best:
    """The hyper-network's weights of the step at which held-out lines were likeliest."""
    def __init__(self, samples, every):
        """samples: the held-out lines; every: steps between looks at them."""
        self.samples = samples
        self.every = every
        self.nats = math.inf
        self.step = 0
        self.weights = None

    def look(self, step, model, tokenizer, config):
        """After a step: measures and, if it is the best so far, keeps the weights."""
        if step % self.every:
            return
        training = model.training
        nats = reference_nll(model.eval(), tokenizer, config, self.samples)[0].nanmean().item()
        model.train(training)
        if nats < self.nats:
            self.nats = nats
            self.step = step
            self.weights = {name: p.detach().clone() for name, p in model.hyper.state_dict().items()}


def add_role(model, tokenizer, config, role, samples, profile="", steps=60, lr=1e-2, hold=10.0, best=None):
    """Adds a role to a loaded run, in place, and trains it on samples.

    hold: the weight of `drift`; best: a Best, whose step is the one to settle from, or None for the last.
    Returns the config with the role in it, the losses of the steps (nats per token) and the drift of the old role that
    has moved most. ValueError where there is no hyper-network, or the role already.
    """
    if model.hyper is None:
        raise ValueError(f"{config['method']} has no hyper-network to make a new role's matrices")
    config = with_role(config, role, profile)

    # what the old roles' matrices are to stay like
    device = model.backbone.device
    old_roles = torch.arange(model.config.num_roles, device=device)
    with torch.no_grad():
        before = model.hyper(old_roles)
    add_embedding(model, config["seed"])

    # the new lines
    cfg = Config(**{key: value for key, value in config.items() if key in KEYS})
    rows = encode(samples, config["roles"], config["profiles"], tokenizer, cfg, model.backbone.config)
    optimizer = torch.optim.Adam(model.hyper.parameters(), lr=lr)
    scaler = torch.amp.GradScaler(device.type, enabled=cfg.precision == "fp16")
    batches = []
    losses = []
    bar = tqdm(range(steps), role)
    for step in bar:
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        batches = batches or batch_order(rows, cfg.batch_size, cfg.seed, step)
        batch = collate([rows[i] for i in batches.pop()], tokenizer.eos_id, cfg.pool)

        # the gradient of the new lines, and of how far old roles have moved
        losses.append(train.backward(model, [batch], cfg, 0.0, scaler)[0].item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of step {step} is not finite: try a lower --lr")
        scaler.scale(hold * drift_of_some(model, before)).backward()

        scaler.step(optimizer)
        scaler.update()
        model.zero_grad()
        bar.set_postfix(nats=f"{losses[-1]:.3f}")
        if best:
            best.look(step + 1, model, tokenizer, config)

    if best and best.weights:
        model.hyper.load_state_dict(best.weights)
    settle(model, before, SETTLE * steps)
    with torch.no_grad():
        moved = max(drift(model, before, role[None]).item() for role in old_roles)
    return config, losses, moved
