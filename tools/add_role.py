"""Adds a role to a finished run, from a few lines, and keeps the other roles as they are.

    python -m tools.add_role --run runs/demo --role "Captain Nemo" --lines nemo.jsonl --out runs/nemo [--steps 60]

A line: {"question": "...", "answer": "..."}; every fifth is held out, and the step at which those were likeliest is
kept, or with --keep last the last one. How it trains: tools/new_role.py. For methods with a hyper-network.
"""
from console import Parser, counted, one_line_errors

import dataclasses
import time
from pathlib import Path

import torch

from checkpoint import load_run
from data import parse_line
from files import new_folder_at, read_jsonl, reading, write_json
from likelihood import reference_nll
from tools.new_role import Best, add_role

LOOKS = 20                              # at the held-out lines, in all steps


def read_lines(path, role):
    """Samples of a JSONL file, all said by `role`."""
    return [parse_line(record | {"role": role}, "added", "other", place) for place, record in read_jsonl(path)]


def nearest_role(model, tokenizer, config, samples, role):
    """(mean nats per token of samples as `role`, the same as the other role that finds them likeliest, its name)."""
    nats = {}
    for name in config["roles"]:
        as_name = [dataclasses.replace(s, role=name) for s in samples]
        nats[name] = reference_nll(model, tokenizer, config, as_name)[0].nanmean().item()
    mine = nats.pop(role)
    nearest = min(nats, key=nats.get)
    return mine, nats[nearest], nearest


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
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--hold", type=float, default=10.0, help="how firmly the other roles are held")
    parser.add_argument("--keep", choices=("best", "last"), default="best",
                        help="the step to keep: where the held-out lines were likeliest, or the last, for more voice")
    parser.add_argument("--out", required=True, help="a new run folder")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.role = args.role.strip()
    if not args.role:
        raise ValueError("--role is empty")
    if not 1 <= args.steps <= 10 ** 6 or not 0 < args.lr <= 10 or not 0 <= args.hold <= 10 ** 9:
        raise ValueError("--steps and --lr have to be positive, --lr at most 10, --hold 0 to a thousand million")
    samples = read_lines(args.lines, args.role)
    if not samples:
        raise ValueError(f"{args.lines} has no line")
    held = samples[4::5]
    learnt = [s for i, s in enumerate(samples) if i % 5 != 4]

    whole = training_seconds(args.run)
    with new_folder_at(args.out) as out:
        model, tokenizer, config = load_run(args.run, args.device)
        best = Best(held, max(1, args.steps // LOOKS)) if held and args.keep == "best" else None
        torch.manual_seed(config["seed"])
        start = time.monotonic()
        config, losses, moved = add_role(model, tokenizer, config, args.role, learnt, args.profile, args.steps, args.lr,
                                         args.hold, best)
        seconds = time.monotonic() - start

        # the new run folder
        model.save(out)
        write_json(out / "roles.json", config["roles"])
        how = {key: getattr(args, key) for key in ("run", "role", "lines", "steps", "lr", "hold", "keep")}
        kept = {key: value for key, value in config.items() if key not in ("roles", "made_of")}
        write_json(out / "config.json", kept | {"out": args.out, "added_role": how})

    print(f"{counted(len(learnt), 'line')}, {counted(args.steps, 'step')}: {losses[0]:.3f} -> {losses[-1]:.3f} nats "
          f"per token; no other role's matrices moved by more than {100 * moved ** 0.5:.2g} %")
    if held:
        mine, theirs, nearest = nearest_role(model.eval(), tokenizer, config, held, args.role)
        step = best.step if best else args.steps
        print(f"{counted(len(held), 'line')} held back: {mine:.3f} as {args.role} at step {step}, which is kept; "
              f"{theirs:.3f} as {nearest}, who comes nearest")
    if whole:
        print(f"{seconds:.0f} s; the run itself trained for {whole:.0f} s, {whole / seconds:.1f} times as long")
    print(f"wrote {args.out}; talk with: python chat.py --run {args.out} --role \"{args.role}\"")


if __name__ == "__main__":
    main()
