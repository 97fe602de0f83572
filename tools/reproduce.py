"""The paper's questions asked again: every method, several seeds, and the tables of README.md and RESULTS.md.

    python -m tools.reproduce tiny [--seeds 5] [--jobs 2] [--only hycora,lora]
    python -m tools.reproduce real-cpu --model FOLDER_OR_ID --data DIR         # and any key of train.py, for all runs

The studies are in tools/studies.py, what each asks and what it costs in docs/studies.md.
Runs go to --out, runs/reproduce/STUDY/POINT/VARIANT/SEED. The same command again keeps what is finished, resumes what
was interrupted, and trains what is missing. Then results/STUDY.json gets every mean, deviation and interval of all that
is scored so far, and `tools.results` fills the tables in from there.
"""
from console import Parser, one_line_errors

import functools
import itertools
import os
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import train
from arguments import parse_args
from checkpoint import read_run
from config import KEYS, resolve
from data import fetch_data, load_rolebench
from eval import make_prediction
from files import read_json, read_jsonl, write_json
from metrics import aggregate
from tools.compare import compare
from tools.results import RESULTS, fill_tables
from tools.studies import STUDIES, VARIANTS


def matches(run, arguments):
    """Whether a run folder was made with these arguments of train.py."""
    cfg, saved = vars(resolve(parse_args(arguments)[0])), read_run(run)
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


def in_context(run, shots, threads):
    """Scores the untouched backbone of a run with `shots` of the role's training lines in its prompt, on the test lines
    of the run, if that is still to do. Returns the file of its answers, or raises ValueError."""
    answers = run / f"backbone-{shots}-shots.jsonl"
    if not answers.is_file():
        config = read_run(run)
        arguments = ["--run", run, "--backbone", "--shots", shots, "--limit", config["score_limit"], "--likelihood",
                     "--likelihood-limit", config["likelihood_limit"], "--out", answers.with_suffix(".json")]
        print(f"eval.py {shlex.join(map(str, arguments))}", flush=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run([sys.executable, "eval.py", *map(str, arguments)], env=environment, text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode:
            raise ValueError(done.stderr.strip().rpartition("\n")[2])
    return answers


def minutes(run):
    """How long a run trained, at its usual speed: whatever interrupted it does not count."""
    lines = [line for _, line in read_jsonl(run / "metrics.jsonl")]
    return sum(line["tokens"] for line in lines) / statistics.median(line["tokens_per_s"] for line in lines) / 60


def over_seeds(values):
    """[mean, standard deviation or None] of the seeds' values; None of no value."""
    return [statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None] if values else None


def rolegpt(config):
    """RoleGPT's rows, a prompted GPT: over the run's test lines that the data folder has its answers to, if any."""
    try:
        load = functools.partial(load_rolebench, fetch_data(config["data"]), config["language"],
                                 splits=config["splits"], generalization=config["generalization"])
        answers = load("rolegpt_baseline")
    except FileNotFoundError:
        return []
    tests = {(s.split, s.role, s.question): s for s in load("test") if s.role in config["roles"]}
    keys = [(s.split, s.role, s.question) for s in answers]
    lines = [make_prediction(tests[key], s.answers[0], "RoleGPT") for key, s in zip(keys, answers) if key in tests]

    rows = []
    for split, of_split in aggregate(lines).items():
        scores = of_split["overall"]
        rows.append({"method": f"RoleGPT ({scores['n']} lines)", "split": split, "role": "all", "kind": "all",
                     "seeds": 1, **scores, "std": None, "trainable": None, "tokens_per_s": None})
    return rows


def gather(folders, answers=()):
    """The result of `compare` for {variant: its runs} and files of answers, and for each variant how distinct its roles
    are and what it cost. Given answers of the backbone, those that training wrote are left out."""
    paths, names = [], []
    for name, runs in folders.items():
        paths += runs
        names += [name] * len(runs)
    result, more = compare([*paths, *answers], names=[*names, *(path.stem for path in answers)]), {}
    for name, runs in folders.items():
        scores = [read_json(run / "scores.json", "the scores of a run") for run in runs]
        more[name] = {
            "as the wrong role": over_seeds([s["swap"]["wrong"]["rougeL"] for s in scores if "swap" in s]),
            "role accuracy": over_seeds([100 * s["likelihood"]["role_accuracy"] for s in scores
                                         if "role_accuracy" in s.get("likelihood", {})]),
            "retrieval": over_seeds([100 * s["retrieval_top1"] for s in scores if "retrieval_top1" in s]),
            "retrieval, read as another": over_seeds([100 * s["retrieval_swapped"]["reader"] for s in scores
                                                      if "retrieval_swapped" in s]),
            "minutes": over_seeds([minutes(run) for run in runs]),
            "commits": sorted({str(read_run(run)["git_commit"])[:12] for run in runs})}
    rows = result["rows"] + rolegpt(read_run(next(iter(folders.values()))[0]))
    differences = result["differences"]
    if answers:
        rows = [row for row in rows if row["method"] != "backbone"]
        differences = [d for d in differences if d["method"] != "backbone"]
    found = {"rows": rows, "differences": differences, "runs": more}
    return {"likelihood": result["likelihood"], **found} if "likelihood" in result else found


@one_line_errors("tools.reproduce")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, help="1 to this; default: the study's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, on one GPU or on shares of the cores")
    parser.add_argument("--only", default="", help="train only these variants or points, comma-separated")
    parser.add_argument("--out", default="runs/reproduce")
    args, keys = parser.parse_known_args()
    study, only, jobs, points, wrong = STUDIES[args.study], set(filter(None, args.only.split(","))), [], {}, []
    seeds = study.seeds if args.seeds is None else range(1, args.seeds + 1)
    folder = {(at, variant): Path(args.out) / args.study / at / variant.replace("/", "").replace(" ", "-")
              for at in study.points for variant in study.variants}

    def job(at, variant, seed):
        """(run folder, arguments of train.py)"""
        run = folder[at, variant] / str(seed)
        own = f"{study.arguments} {study.points[at]} {VARIANTS[variant]} --seed {seed} --out {shlex.quote(str(run))}"
        return run, shlex.split(own) + keys
    if args.seeds == 0 or min(args.seeds or 1, args.jobs) < 1:
        raise ValueError("--seeds and --jobs have to be positive")
    if unknown := only - set(study.points) - set(study.variants):
        raise ValueError(f"--only {', '.join(unknown)}: choose {', '.join([*study.points, *study.variants])}")
    for seed, (at, variant) in itertools.product(seeds, folder):     # seed by seed: the methods stay level
        if not only or only & {at, variant}:
            jobs.append(job(at, variant, seed))
            parse_args(jobs[-1][1])              # fails here, before the first of them has trained
    with ThreadPoolExecutor(args.jobs) as pool:
        threads = max(1, (os.cpu_count() or 1) // args.jobs)
        wrong = [w for w in pool.map(lambda job: make(*job, threads), jobs) if w]
    for (at, variant), place in folder.items():
        if runs := sorted(path.parent for path in place.glob("*/scores.json")):
            points.setdefault(at, {})[variant] = runs
        if unlike := [run for run in runs if not matches(run, job(at, variant, run.name)[1])]:
            raise ValueError(f"{unlike[0]} was made with other keys: move it away, or choose another --out")
    answers = {}
    for at, of_variants in points.items():
        first = next(iter(of_variants.values()))[0]
        answers[at] = [in_context(first, shots, threads) for shots in study.shots]
    more = [Path(key).name if os.path.isabs(key) else key for key in keys]           # no machine's folders
    result = {"study": args.study, "arguments": " ".join([study.arguments, *more]),
              "torch": train.torch.__version__, "points": {at: gather(of, answers[at]) for at, of in points.items()}}
    if points:
        RESULTS.mkdir(exist_ok=True)
        write_json(RESULTS / f"{args.study}.json", result)
        fill_tables()
        print(f"wrote results/{args.study}.json, and the tables of README.md and RESULTS.md")
    if wrong:
        sys.exit("tools.reproduce: " + "\n".join(wrong))


if __name__ == "__main__":
    main()
