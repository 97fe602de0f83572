"""Kills a training run with SIGKILL at random moments, resumes it each time, and compares what comes out.

    python -m benchmarks.crash [--kills 25] [--steps 300] [--seed 0]

Half of the moments are aimed at a checkpoint that is being written. At the end the weights have to be those of a run
that nobody touched, bit for bit, and metrics.jsonl has to have each step once, with the same loss.
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
RUN = ("--role-subset 3 --role-dim 16 --layer-dim 16 --hidden-dim 32 --head-rank 8 --rank 4 --batch-size 4 "
       "--adapter-dropout 0.1 --lambda-start-epoch 0 --save-every 2 --log-every 1 --score-limit 0 --device cpu").split()


def start(*args):
    """A training process, silent."""
    command = [sys.executable, "train.py", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(*args):
    """A training process to its end."""
    if start(*args).wait() != 0:
        sys.exit(f"benchmarks.crash: train.py {' '.join(map(str, args))} has failed")


def losses(run):
    """[(step, loss)] of a run's metrics."""
    return [(m["step"], m["loss"]) for m in map(json.loads, (run / "metrics.jsonl").read_text("utf8").splitlines())]


def kill_one(run, args, rng):
    """Starts or resumes the run and kills it a random while after it has reached its loop. Returns what it was at."""
    process, metrics = start(*(["--resume", run] if (run / "config.json").exists() else args)), run / "metrics.jsonl"
    known = metrics.stat().st_mtime_ns if metrics.exists() else 0
    while process.poll() is None and (not metrics.exists() or metrics.stat().st_mtime_ns == known):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 1))
    folder = run / "checkpoint"
    if rng.random() < 0.5:                                # half of them as soon as a file is being written
        while process.poll() is None and not any(folder.glob("*.tmp")):
            pass
    if process.poll() is not None:
        return "finished"
    process.kill()
    process.wait()
    if any(folder.glob("*.tmp")):
        return "writing a checkpoint"
    unsealed = len(list(folder.glob("*.safetensors"))) > len(list(folder.glob("*.json")))
    return "between a checkpoint and its seal" if unsealed else "training"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    for name, default in (("kills", 25), ("steps", 300), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    rng, tally = random.Random(args.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        finish(*RUN, "--max-steps", args.steps, "--out", whole)
        for _ in tqdm(range(args.kills), "killing"):
            moment = kill_one(killed, [*RUN, "--max-steps", args.steps, "--out", killed], rng)
            tally[moment] = tally.get(moment, 0) + 1
            if moment == "finished":
                break
        at = len(losses(killed))
        finish("--resume", killed)
        a, b = (load_file(run / "adapter.safetensors") for run in (whole, killed))
        weights = a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)
        metrics = losses(whole) == losses(killed)
    moments = ", ".join(f"{n} {moment}" for moment, n in tally.items())
    print(f"{sum(tally.values())} kills by step {at} of {args.steps}: {moments}")
    print(f"weights bit-identical: {weights}; each step once, with the same loss: {metrics}")
    if "finished" in tally or not weights or not metrics:
        sys.exit("benchmarks.crash: failed" + ("; raise --steps" if "finished" in tally else ""))


if __name__ == "__main__":
    main()
