"""Adds a role to a finished run, from a few lines, and keeps the other roles as they are.

    python -m tools.add_role --run runs/demo --role "Captain Nemo" --lines nemo.jsonl --out runs/nemo [--steps 100]

A line: {"question": "...", "generated": ["an answer", ...]}; every fifth is held back and scored. The new role's
embedding starts as the mean of the others. The hyper-network with its embeddings trains on the new lines, while the
other roles' matrices, which are known, are held where they were (von Oswald et al. 2020, Continual learning with
hypernetworks): no old data are needed. B, which all share, stays. For methods with a hyper-network.
"""
from console import Parser, one_line_errors

import dataclasses

import torch
from torch import nn
from tqdm import tqdm

import train
from batches import batch_order, collate
from checkpoint import load_run
from data import encode_examples, parse_line
from eval import reference_nll
from files import new_folder_at, read_jsonl, write_json


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


def add_role(model, tokenizer, config, role, samples, profile="", steps=100, lr=1e-3, hold=100.0):
    """Adds a role to a loaded run, in place, and trains it on samples; hold: the weight of `drift`, of eight old roles
    a step. Returns the config with the role in it, the losses of the steps (nats per token) and the drift of the old
    role that has moved most. ValueError where there is no hyper-network, or the role already."""
    if model.hyper is None:
        raise ValueError(f"{config['method']} has no hyper-network to make a new role's matrices")
    if role in config["roles"]:
        raise ValueError(f"{config['out']} has a role {role!r} already")
    config = config | {"roles": config["roles"] | {role: len(config["roles"])},
                       "profiles": config["profiles"] | ({role: profile} if profile else {})}
    with torch.no_grad():
        known = model.hyper.role_embedding.weight                                        # (R, d_c)
        before = model.hyper(torch.arange(len(known), device=known.device))
        e_c = nn.Embedding.from_pretrained(torch.cat((known, known.mean(0, keepdim=True))), freeze=False)
    model.hyper.role_embedding = e_c
    model.config = dataclasses.replace(model.config, num_roles=len(e_c.weight))
    rows, *_ = encode_examples(samples, config["roles"], tokenizer, config["max_length"],
                               config["profiles"] if config["role_in_prompt"] else None)
    cfg = train.Config(**{k: v for k, v in config.items() if k in train.KEYS})
    optimizer = torch.optim.Adam(model.hyper.parameters(), lr=lr)
    scaler = torch.amp.GradScaler(known.device.type, enabled=cfg.precision == "fp16")
    batches, losses = [], []
    for step in (bar := tqdm(range(steps), role)):
        batches = batches or batch_order(rows, cfg.batch_size, cfg.seed, step)
        batch = collate([rows[i] for i in batches.pop()], tokenizer.eos_id, cfg.pool)
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        losses.append(train.backward(model, [batch], cfg, 0.0, scaler)[0].item())
        held = drift(model, before, torch.randperm(len(known), device=known.device)[:8])
        scaler.scale(hold * held).backward()
        scaler.step(optimizer)
        scaler.update()
        model.zero_grad()
        bar.set_postfix(nats=f"{losses[-1]:.3f}")
    with torch.no_grad():
        moved = max(drift(model, before, role[None]).item() for role in torch.arange(len(known), device=known.device))
    return config, losses, moved


@one_line_errors("tools.add_role")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--role", required=True, help="the new name")
    parser.add_argument("--lines", required=True, help="JSONL of questions and the role's answers")
    parser.add_argument("--profile", default="", help="a description, for prompts that tell the role")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hold", type=float, default=100.0, help="how firmly the other roles are held")
    parser.add_argument("--out", required=True, help="a new run folder")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.role = args.role.strip()                        # as the lines' are
    if not 1 <= args.steps <= 10 ** 6 or not 0 < args.lr <= 10 or not 0 <= args.hold <= 10 ** 9:
        raise ValueError("--steps and --lr have to be positive, --lr at most 10, --hold 0 to a thousand million")
    samples = read_lines(args.lines, args.role, args.language)
    held = samples[4::5]                               # every fifth line tells whether it learnt more than the rest
    learnt = [s for i, s in enumerate(samples) if i % 5 != 4]
    with new_folder_at(args.out) as out:
        model, tokenizer, config = load_run(args.run, args.device)
        config, losses, moved = add_role(model, tokenizer, config, args.role, learnt, args.profile, args.steps, args.lr,
                                         args.hold)
        model.save(out)
        write_json(out / "roles.json", config["roles"])
        how = {k: getattr(args, k) for k in ("run", "role", "lines", "steps", "lr", "hold")}
        kept = {k: v for k, v in config.items() if k not in ("roles", "made_of")}
        write_json(out / "config.json", kept | {"out": args.out, "added_role": how})
    print(f"{len(samples) - len(held)} lines, {args.steps} steps: {losses[0]:.3f} -> {losses[-1]:.3f} nats per token; "
          f"no other role's matrices moved by more than {100 * moved ** 0.5:.2g} %")
    if held:
        others = [dataclasses.replace(s, role=name) for name in config["roles"] if name != args.role for s in held]
        mine, theirs = (reference_nll(model.eval(), tokenizer, config, x)[0] for x in (held, others))
        theirs = theirs.view(-1, len(held)).mean(1)
        best = theirs.argmin().item()
        print(f"{len(held)} lines held back: {mine.mean():.3f} as {args.role}, {theirs[best]:.3f} as "
              f"{list(config['roles'])[best]}, who comes nearest")
    print(f"wrote {args.out}; talk with: python chat.py --run {args.out} --role \"{args.role}\"")


if __name__ == "__main__":
    main()
