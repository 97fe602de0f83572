"""The training of tools.add_role: one role more for a loaded run, from a few lines, while the others stay.

The new role's embedding starts as the mean of the others. The hyper-network with its embeddings trains on the new
lines, and a penalty holds the other roles' matrices, which are known, where they were (von Oswald et al. 2020,
Continual learning with hypernetworks): no old data are needed. B, which all share, stays.
"""
import dataclasses
import math

import torch
from torch import nn
from tqdm import tqdm

import train
from batches import batch_order, collate
from config import KEYS, Config
from data import encode_examples
from likelihood import reference_nll


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


def with_role(config, role, profile=""):
    """`config` with one role more. ValueError where it is there already, in whatever case."""
    known = {name.casefold(): name for name in config["roles"]}
    if role.casefold() in known:
        raise ValueError(f"{config['out']} has a role {known[role.casefold()]!r} already")
    profiles = config["profiles"] | ({role: profile} if profile else {})
    return config | {"roles": config["roles"] | {role: len(config["roles"])}, "profiles": profiles}


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


@torch.no_grad()
def add_embedding(model):
    """Gives the hyper-network one role more, the mean of the others."""
    known = model.hyper.role_embedding.weight                                            # (R, d_c)
    e_c = torch.cat((known, known.mean(0, keepdim=True)))                                # (R + 1, d_c)
    model.hyper.role_embedding = nn.Embedding.from_pretrained(e_c, freeze=False)
    model.config = dataclasses.replace(model.config, num_roles=len(e_c))


def add_role(model, tokenizer, config, role, samples, profile="", steps=100, lr=1e-3, hold=100.0, best=None):
    """Adds a role to a loaded run, in place, and trains it on samples.

    hold: the weight of `drift`, of eight old roles a step; best: a Best, whose weights stay, or None for the last.
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
    add_embedding(model)

    # the new lines
    in_prompt = config["profiles"] if config["role_in_prompt"] else None
    rows, *_ = encode_examples(samples, config["roles"], tokenizer, config["max_length"], in_prompt)
    cfg = Config(**{key: value for key, value in config.items() if key in KEYS})
    optimizer = torch.optim.Adam(model.hyper.parameters(), lr=lr)
    scaler = torch.amp.GradScaler(device.type, enabled=cfg.precision == "fp16")
    batches = []
    losses = []
    bar = tqdm(range(steps), role)
    for step in bar:
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        batches = batches or batch_order(rows, cfg.batch_size, cfg.seed, step)
        batch = collate([rows[i] for i in batches.pop()], tokenizer.eos_id, cfg.pool)

        # the gradient of the new lines
        losses.append(train.backward(model, [batch], cfg, 0.0, scaler)[0].item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of step {step} is not finite: try a lower --lr")

        # that of how far eight of the old roles have moved
        some = old_roles[torch.randperm(len(old_roles), device=device)[:8]]
        scaler.scale(hold * drift(model, before, some)).backward()

        scaler.step(optimizer)
        scaler.update()
        model.zero_grad()
        bar.set_postfix(nats=f"{losses[-1]:.3f}")
        if best:
            best.look(step + 1, model, tokenizer, config)

    if best and best.weights:
        model.hyper.load_state_dict(best.weights)
    with torch.no_grad():
        moved = max(drift(model, before, role[None]).item() for role in old_roles)
    return config, losses, moved
