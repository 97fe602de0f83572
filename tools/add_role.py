"""Adds a role to a finished run, from a few lines, and keeps the other roles as they are.

    python -m tools.add_role --run runs/demo --role "Captain Nemo" --lines nemo.jsonl --out runs/nemo [--steps 100]

A line: {"question": "...", "answer": "..."}; every fifth is held out, and the step at which those were likeliest is
kept. The new role's embedding starts as the mean of the others. The hyper-network with its embeddings trains on the new
lines, while the other roles' matrices, which are known, are held where they were (von Oswald et al. 2020, Continual
learning with hypernetworks): no old data are needed. B, which all share, stays. For methods with a hyper-network.
"""
from console import Parser, counted, one_line_errors

import dataclasses
import math
import time
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

import train
from batches import batch_order, collate
from checkpoint import load_run
from config import KEYS, Config
from data import encode_examples, parse_line
from files import new_folder_at, read_jsonl, reading, write_json
from likelihood import reference_nll

LOOKS = 20                              # at the held-out lines, in all steps


def read_lines(path, role, language):
    """Samples of a JSONL file, all said by `role`."""
    return [parse_line(record | {"role": role}, "added", language, place) for place, record in read_jsonl(path)]


def drift(model, before, roles):
    """How far the matrices of `roles` (ids) have moved from `before`, {kind: {factor: (R, n, rows, columns)}} of all R:
    mean square of the differences over that of the matrices."""
    now = model.hyper(roles)
    parts = [(now[kind][factor] - m[roles]).square().mean() / m.square().mean().clamp(min=1e-12)
             for kind, factors in before.items() for factor, m in factors.items()]
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


def add_role(model, tokenizer, config, role, samples, profile="", steps=100, lr=1e-3, hold=100.0, best=None):
    """Adds a role to a loaded run, in place, and trains it on samples.

    hold: the weight of `drift`, of eight old roles a step; best: a Best, whose weights stay, or None for the last.
    Returns the config with the role in it, the losses of the steps (nats per token) and the drift of the old role that
    has moved most. ValueError where there is no hyper-network, or the role already.
    """
    if model.hyper is None:
        raise ValueError(f"{config['method']} has no hyper-network to make a new role's matrices")
    config = with_role(config, role, profile)

    # one embedding more, and what the old roles' matrices are to stay like
    with torch.no_grad():
        known = model.hyper.role_embedding.weight                                        # (R, d_c)
        old_roles = torch.arange(len(known), device=known.device)
        before = model.hyper(old_roles)
        e_c = torch.cat((known, known.mean(0, keepdim=True)))                            # (R + 1, d_c)
    model.hyper.role_embedding = nn.Embedding.from_pretrained(e_c, freeze=False)
    model.config = dataclasses.replace(model.config, num_roles=len(e_c))

    in_prompt = config["profiles"] if config["role_in_prompt"] else None
    rows, *_ = encode_examples(samples, config["roles"], tokenizer, config["max_length"], in_prompt)
    cfg = Config(**{k: v for k, v in config.items() if k in KEYS})
    optimizer = torch.optim.Adam(model.hyper.parameters(), lr=lr)
    scaler = torch.amp.GradScaler(known.device.type, enabled=cfg.precision == "fp16")
    batches = []
    losses = []
    bar = tqdm(range(steps), role)
    for step in bar:
        batches = batches or batch_order(rows, cfg.batch_size, cfg.seed, step)
        batch = collate([rows[i] for i in batches.pop()], tokenizer.eos_id, cfg.pool)
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)

        # the gradient of the new lines, and of how far eight of the old roles have moved
        losses.append(train.backward(model, [batch], cfg, 0.0, scaler)[0].item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of step {step} is not finite: try a lower --lr")
        some = old_roles[torch.randperm(len(old_roles), device=known.device)[:8]]
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


def nearest_role(model, tokenizer, config, samples, role):
    """(mean nats per token of samples as `role`, the same as the other role that finds them likeliest, its name)."""
    others = [name for name in config["roles"] if name != role]
    as_others = [dataclasses.replace(s, role=name) for name in others for s in samples]
    mine, _ = reference_nll(model, tokenizer, config, samples)
    theirs, _ = reference_nll(model, tokenizer, config, as_others)
    theirs = theirs.view(-1, len(samples)).nanmean(1)
    nearest = theirs.argmin().item()
    return mine.nanmean().item(), theirs[nearest].item(), others[nearest]


def training_seconds(run):
    """How long a run trained, by its metrics.jsonl; 0 where there is none."""
    path = Path(run) / "metrics.jsonl"
    lines = [line for _, line in read_jsonl(path)] if path.is_file() else []
    with reading(path, 'lines of metrics, with "tokens" and "tokens_per_s"'):
        return sum(line["tokens"] / line["tokens_per_s"] for line in lines if line["tokens_per_s"])


@one_line_errors("tools.add_role")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--role", required=True, help="the new name")
    parser.add_argument("--lines", required=True, help="JSONL of questions and the role's answers")
    parser.add_argument("--profile", default="", help="a description, for prompts that tell the role")
    parser.add_argument("--language", choices=("en", "zh", "other"), default="en")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hold", type=float, default=100.0, help="how firmly the other roles are held")
    parser.add_argument("--out", required=True, help="a new run folder")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.role = args.role.strip()
    if not args.role:
        raise ValueError("--role is empty")
    if not 1 <= args.steps <= 10 ** 6 or not 0 < args.lr <= 10 or not 0 <= args.hold <= 10 ** 9:
        raise ValueError("--steps and --lr have to be positive, --lr at most 10, --hold 0 to a thousand million")
    samples = read_lines(args.lines, args.role, args.language)
    if not samples:
        raise ValueError(f"{args.lines} has no line")
    held = samples[4::5]
    learnt = [s for i, s in enumerate(samples) if i % 5 != 4]

    whole = training_seconds(args.run)
    with new_folder_at(args.out) as out:
        model, tokenizer, config = load_run(args.run, args.device)
        best = Best(held, max(1, args.steps // LOOKS)) if held else None
        start = time.monotonic()
        config, losses, moved = add_role(model, tokenizer, config, args.role, learnt, args.profile, args.steps, args.lr,
                                         args.hold, best)
        seconds = time.monotonic() - start
        model.save(out)
        write_json(out / "roles.json", config["roles"])
        how = {k: getattr(args, k) for k in ("run", "role", "lines", "steps", "lr", "hold")}
        kept = {k: v for k, v in config.items() if k not in ("roles", "made_of")}
        write_json(out / "config.json", kept | {"out": args.out, "added_role": how})

    print(f"{counted(len(learnt), 'line')}, {counted(args.steps, 'step')}: {losses[0]:.3f} -> {losses[-1]:.3f} nats "
          f"per token; no other role's matrices moved by more than {100 * moved ** 0.5:.2g} %")
    if held:
        mine, theirs, nearest = nearest_role(model.eval(), tokenizer, config, held, args.role)
        print(f"{counted(len(held), 'line')} held back: {mine:.3f} as {args.role} at step {best.step}, which is kept; "
              f"{theirs:.3f} as {nearest}, who comes nearest")
    if whole:
        print(f"{seconds:.0f} s; the run itself trained for {whole:.0f} s, {whole / seconds:.1f} times as long")
    print(f"wrote {args.out}; talk with: python chat.py --run {args.out} --role \"{args.role}\"")


if __name__ == "__main__":
    main()
