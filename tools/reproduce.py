"""The paper's questions asked again: every method, several seeds, and the tables of the results.

    python -m tools.reproduce tiny [--seeds 5] [--jobs 2] [--only hycora,lora]
    python -m tools.reproduce ten-roles --model FOLDER_OR_ID --data DIR        # and any key of train.py, for all runs

The studies are in tools/studies.py, what each asks and what it costs in docs/studies.
Runs go to --out, runs/reproduce/STUDY/POINT/VARIANT/SEED. The same command again keeps what is finished, resumes what
was interrupted, and trains what is missing there, whatever results/STUDY.json has. Then that file gets every mean,
deviation and interval of all that is scored so far. It keeps points of which nothing is run here, but not what
compares points with them ("across", "best"), and loses no variant or seed without --replace. `tools.results` fills in
the tables.
"""
from console import Parser, counted, one_line_errors

import itertools
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arguments import parse_args
from checkpoint import read_run
from config import KEYS
from files import write_json
from likelihood import lines_to_read
from prepare import read_arguments
from tools.across import across, best_of_each
from tools.gather import gather
from tools.published import read_published, with_published
from tools.results import RESULTS, fill_tables
from tools.studies import STUDIES, VARIANTS


def matches(run, arguments):
    """Whether a run folder was made with these arguments of train.py."""
    cfg, saved = vars(read_arguments(arguments)[0]), read_run(run)
    return all(saved[key] == value for key, value in cfg.items() if key in KEYS and key not in ("out", "device"))


def make(run, arguments, threads):
    """Trains and scores one run, unless that is done already. Returns None, or what went wrong."""
    if (run / "config.json").is_file():
        if not matches(run, arguments):
            return f"{run} was made with other keys: move it away, or choose another --out"
        if (run / "scores.json").is_file():
            return None
        arguments = ["--resume", str(run)]
    run.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    print(f"train.py {shlex.join(arguments)}", flush=True)
    with open(f"{run}.log", "w") as log:
        done = subprocess.run([sys.executable, "train.py", *arguments], env=environment, stdout=log, stderr=log)
    if not (run / "scores.json").is_file():                # (stopped by a signal, it exits with 0, unfinished)
        last = Path(log.name).read_text("utf8").splitlines()[-1:]
        return f"{run}.log: {' '.join(last)} (exit code {done.returncode})"


def in_context(run, shots):
    """Scores the untouched backbone of a run with `shots` of the role's training lines in its prompt, on the test lines
    of the run, if that is still to do. Returns the file of its answers, or raises ValueError."""
    scores = run / f"backbone-{shots}-shots.json"
    answers = scores.with_suffix(".jsonl")
    files = (scores, answers, scores.with_suffix(".likelihood.jsonl"))
    if not scores.is_file() or not scores.stat().st_size:                # the last that is written
        for path in files:
            path.unlink(missing_ok=True)                                 # of a scoring that was killed
        config = read_run(run)
        arguments = ["--run", run, "--backbone", "--shots", shots, "--limit", config["score_limit"], "--likelihood",
                     "--likelihood-limit", lines_to_read(config), "--out", scores]
        print(f"eval.py {shlex.join(map(str, arguments))}", flush=True)
        done = subprocess.run([sys.executable, "eval.py", *map(str, arguments)], text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode:
            raise ValueError(done.stderr.strip().rpartition("\n")[2])
    return answers


def plan(study, out, keys):
    """{(point, variant): {"folder", "arguments"}}: the folder of its seeds' runs, and their arguments of train.py."""
    jobs = {}
    for at, variant in itertools.product(study.points, study.variants):
        more = f"{study.points[at]} {VARIANTS[variant]} {study.more.get(variant, '')}"
        arguments = shlex.split(f"{study.arguments} {more}") + keys
        jobs[at, variant] = {"folder": out / at / variant.replace("/", "").replace(" ", "-"), "arguments": arguments}
    return jobs


def job(of, seed):
    """(run folder, arguments of train.py) of a seed of an entry of `plan`."""
    run = of["folder"] / str(seed)
    return run, [*of["arguments"], "--seed", str(seed), "--out", str(run)]


def choose(jobs, study, only):
    """The entries of `plan` that --only names: at its points, if it names any, of its variants, if it names any."""
    points = only & set(study.points) or set(study.points)
    variants = only & set(study.variants) or set(study.variants)
    return {(at, name): of for (at, name), of in jobs.items() if at in points and name in variants}


def train_missing(jobs, seeds, workers):
    """Trains what is missing of the jobs, seed by seed, so that the methods stay level; returns what failed."""
    runs = [job(of, seed) for seed in seeds for of in jobs.values()]
    for _, arguments in runs:
        parse_args(arguments)                # fails here, before the first of them has trained
    missing = sum(not (run / "scores.json").is_file() for run, _ in runs)
    print(f"{missing} of {counted(len(runs), 'run')} to train or to finish", flush=True)
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ThreadPoolExecutor(workers) as pool:
        failures = list(pool.map(lambda each: make(*each, threads), runs))
    return [failure for failure in failures if failure]


def finished(jobs):
    """{point: {variant: its scored runs}}. ValueError for a run that was made with other keys."""
    points = {}
    for (at, variant), of in jobs.items():
        runs = sorted(path.parent for path in of["folder"].glob("*/scores.json"))
        if runs:
            points.setdefault(at, {})[variant] = runs
        for run in runs:
            if not matches(run, job(of, run.name)[1]):
                raise ValueError(f"{run} was made with other keys: move it away, or choose another --out")
    return points


def seeds_of(points):
    """{(point, variant): the names of its seeds} of `finished`."""
    return {(at, name): {run.name for run in runs} for at, of in points.items() for name, runs in of.items()}


def made_with(points):
    """What made the runs of `finished`, as text: each version of torch, "on" its GPU if it had one."""
    made = set()
    for run in [run for of_variants in points.values() for of in of_variants.values() for run in of]:
        config = read_run(run)
        made.add(config["torch"] + (f" on {config['gpu']}" if config.get("gpu") else ""))
    return ", ".join(sorted(made))


@one_line_errors("tools.reproduce")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, help="1 to this; default: the study's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, on one GPU or on shares of the cores")
    parser.add_argument("--only", default="", help="only these variants, at these points; comma-separated")
    parser.add_argument("--out", default="runs/reproduce")
    parser.add_argument("--replace", action="store_true", help="the results file may lose variants, seeds and points")
    args, keys = parser.parse_known_args()
    study = STUDIES[args.study]
    only = set(filter(None, args.only.split(",")))
    if args.seeds == 0 or min(args.seeds or 1, args.jobs) < 1:
        raise ValueError("--seeds and --jobs have to be positive")
    if unknown := only - set(study.points) - set(study.variants):
        raise ValueError(f"--only {', '.join(unknown)}: choose {', '.join([*study.points, *study.variants])}")

    # what is published already has to have a place in what there will be
    jobs = plan(study, Path(args.out) / args.study, keys)
    chosen = choose(jobs, study, only)
    seeds = study.seeds if args.seeds is None else range(1, args.seeds + 1)
    more = [Path(key).name if os.path.isabs(key) else key for key in keys]           # no machine's folders
    about = {"study": args.study, "arguments": " ".join([study.arguments, *more]), "more": study.more}
    path = RESULTS / f"{args.study}.json"
    here = seeds_of(finished(jobs))          # fails here, before the first run, if one was made with other keys
    for key in chosen:
        here[key] = here.get(key, set()) | set(map(str, seeds))
    if not args.replace:
        read_published(path, about["arguments"], here)

    # train; what failed may not take published results with it
    wrong = train_missing(chosen, seeds, args.jobs)
    points = finished(jobs)
    published = None
    if not args.replace:
        try:
            published = read_published(path, about["arguments"], seeds_of(points))
        except ValueError as error:
            sys.exit("tools.reproduce: " + "\n".join([*wrong, str(error)]))

    # the backbone with examples in its prompt, once for each point
    answers = {}
    for at, of_variants in points.items():
        first = next(iter(of_variants.values()))[0]
        answers[at] = [in_context(first, shots) for shots in study.shots]

    # everything that is scored so far
    if points:
        best = best_of_each(points, study.variants) if len(points) > 1 else []
        result = about | {"torch": made_with(points), "across": across(points), "best": best,
                          "points": {at: gather(of, answers[at]) for at, of in points.items()}}
        if best:                             # one more point: each variant's runs at its own best one
            result["at best"] = gather({row["method"]: points[row["at"]][row["method"]] for row in best})
        if published:
            result = with_published(result, published, study.points)
        RESULTS.mkdir(exist_ok=True)
        write_json(path, result)
        fill_tables()
        print(f"wrote results/{args.study}.json, and those of its tables for which a page has marks")
    if wrong:
        sys.exit("tools.reproduce: " + "\n".join(wrong))


if __name__ == "__main__":
    main()
