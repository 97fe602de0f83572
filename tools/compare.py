"""Runs side by side, and whether their differences exceed what the choice of test items explains.

    python -m tools.compare --runs runs/lora runs/hycora-1 runs/hycora-2 [--per-role] [--format markdown|json]
    python -m tools.compare --runs runs/ind-lora runs/hycora --table 3             # in the shape of the paper's

A row is a method on a split: runs that differ only in their seed are one row, their mean and standard deviation. The
first is the one that the others are compared with; the untouched backbone is added if the first run's folder has its
answers to the same items. A .jsonl in the form of predictions.jsonl (a service's answers, say) may stand for a run.

First comes the likelihood of the references, if it was measured (tools/likelihoods.py). Where the data list the words
of a right answer, "fact" is the percentage of right answers, and each kind of knowledge that they name is a row.

The interval of a difference is a bootstrap over test items and seeds together: it shows how far other questions and
other seeds could move it. With a single seed it covers the questions only.
"""
from console import Parser, one_line_errors, render_table

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from checkpoint import read_run
from eval import read_predictions
from files import read_jsonl, reading
from hycora_layer import METHODS
from metrics import METRICS, bootstrap_difference
from tools.likelihoods import compare_likelihoods, file_beside, likelihood_tables, read_likelihood

TITLES = {"bleu4": "BLEU-4", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "fact": "fact"}

FEW_ITEMS = 30                          # a bootstrap of fewer is overconfident: no *


@dataclass
class Run:
    """A scored run: `scores` has a row of METRICS and "fact" (NaN without one) for each of `items`, which are
    (split, role, question, kind) in sorted order."""
    name: str
    identity: str                       # equal for runs that differ only in their seed
    seed: int | None
    items: list
    scores: np.ndarray
    by: str                             # what made it: run, data, seed, decoding
    trainable: int | None = None
    tokens_per_s: float | None = None
    read: tuple | None = None           # (items, values) of `read_likelihood`


def name_of(config):
    """The method as the paper's tables call it, and a note if the prompt is not the method's default."""
    sources = METHODS[config["method"]]
    name = config["method"] + (" w/o HCL" if "hyper" in sources and not config["lambda_max"] else "")
    if config["role_in_prompt"] != (set(sources) == {"shared"}):
        name += " + role in prompt" if config["role_in_prompt"] else " - role in prompt"
    if config["role_in_prompt"] and not config["profiles_in_prompt"]:
        name += ", name only"
    return name


def read_lines(path):
    """(items, scores, what made them) of a predictions.jsonl."""
    lines = sorted(read_predictions(path, trust=True), key=lambda p: (p["split"], p["role"], p["question"]))
    items = [(p["split"], p["role"], p["question"], p.get("kind", "")) for p in lines]
    scores = [[p.get(metric, math.nan) for metric in TITLES] for p in lines]
    return items, np.array(scores), str(lines[0].get("by", path))


def read(path):
    """The Run of a run folder or of a file of predictions, with its likelihoods, if they were measured."""
    path = Path(path)
    run = read_predicted(path)
    likelihoods = file_beside(path if path.suffix == ".jsonl" else path / "predictions.jsonl")
    if likelihoods.is_file():
        run.read = read_likelihood(likelihoods)
    return run


def read_predicted(path):
    """The Run of a run folder or of a file of predictions, without likelihoods."""
    if path.suffix == ".jsonl":
        return Run("backbone" if path.stem == "predictions_backbone" else path.stem, str(path), None, *read_lines(path))
    config = read_run(path)
    if not (path / "predictions.jsonl").is_file():
        raise ValueError(f"{path} is not scored yet: python eval.py --run {path}")
    with reading(path / "adapter.safetensors", "a run's adapter"):
        with safe_open(path / "adapter.safetensors", framework="np") as file:
            trainable = sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())
    metrics = path / "metrics.jsonl"                       # which a run with a role added later lacks
    with reading(metrics, 'lines of metrics, with "tokens_per_s"'):
        speeds = [float(line["tokens_per_s"]) for _, line in read_jsonl(metrics)] if metrics.is_file() else []
    items, scores, by = read_lines(path / "predictions.jsonl")
    other = ("seed", "made_of", "out", "device", "python", "torch", "git_commit")
    same = {k: v for k, v in config.items() if k not in other}
    identity = json.dumps([same, by.rpartition("; ")[2] if "; " in by else ""], sort_keys=True)     # and the decoding
    return Run(name_of(config), identity, config["seed"], items, scores, by, trainable,
               statistics.median(speeds) if speeds else None)


def grouped(paths, names=None):
    """{name: [Run of each seed]}, in order; names: those of `paths`, in place of the methods'. ValueError unless all
    answered the same items, each run its own seed."""
    runs, groups = [read(path) for path in paths], {}
    for run, name in zip(runs, names or []):
        run.name = name
    for path, run in zip(paths, runs):
        if run.items != runs[0].items:
            common = len(set(run.items) & set(runs[0].items))
            raise ValueError(f"{path} answers {len(run.items)} test lines and {paths[0]} {len(runs[0].items)}, "
                             f"{common} of them the same: score both on the same lines")
        same_runs = groups.setdefault(run.identity, [])
        if run.seed in [run.seed for run, _ in same_runs]:
            raise ValueError(f"{path} is the same run as another one, seed {run.seed} and all")
        same_runs.append((run, path))
    names = [members[0][0].name for members in groups.values()]
    result = {name if names.count(name) == 1 else f"{name} ({members[0][1]})": [run for run, _ in members]
              for name, members in zip(names, groups.values())}
    backbone = Path(paths[0]) / "predictions_backbone.jsonl"
    if backbone.is_file() and (run := read(backbone)).items == runs[0].items:
        result.setdefault(run.name, [run])
    return result


def selections(items, per_role):
    """[({"split", "role", "kind"}, indices of its items)]: each split, its kinds, and its roles if asked."""
    of = {}
    for i, (split, role, _, kind) in enumerate(items):
        keys = [(split, "all", "all")]
        if kind:
            keys.append((split, "all", kind))
        if per_role:
            keys.append((split, role, "all"))
        for key in keys:
            of.setdefault(key, []).append(i)
    return [(dict(zip(("split", "role", "kind"), key)), indices) for key, indices in of.items()]


def means_of(scores):
    """{metric: mean} of rows of scores; "fact" over those that have one, if any has."""
    known = {metric: column[~np.isnan(column)] for metric, column in zip(TITLES, scores.T)}
    return {metric: column.mean().item() for metric, column in known.items() if len(column)}


def deviations_of(runs, chosen):
    """{metric: standard deviation over the seeds}, or None of a single seed."""
    if len(runs) == 1:
        return None
    means = [means_of(run.scores[chosen]) for run in runs]
    return {metric: statistics.stdev(of_seed[metric] for of_seed in means) for metric in means[0]}


def differences_of(scores, others):
    """{metric: {"difference", "interval"}} of the scores (seeds, items, metrics) of two methods."""
    found = {}
    for metric, mean in means_of(scores.mean(0) - others.mean(0)).items():
        column = list(TITLES).index(metric)
        known = ~np.isnan(scores[0, :, column])
        interval = bootstrap_difference(scores[:, known, column], others[:, known, column])
        found[metric] = {"difference": mean, "interval": tuple(interval)}
    return found


def likelihoods_of(groups, per_role):
    """`compare_likelihoods` of the methods of which every run has likelihoods; None where the first one has not.

    ValueError unless they are of the same lines.
    """
    measured = {}
    for name, runs in groups.items():
        if all(run.read for run in runs):
            measured[name] = [run.read for run in runs]
    first = next(iter(groups))
    if first not in measured:
        return None
    items = measured[first][0][0]
    for name, of_runs in measured.items():
        if any(other != items for other, _ in of_runs):
            raise ValueError(f"the likelihoods of {name} are of other test lines than those of {first}: measure both "
                             f"on the same lines")
    values = {name: [of_run for _, of_run in of_runs] for name, of_runs in measured.items()}
    return compare_likelihoods(values, selections(items, per_role))


def compare(paths, per_role=False, names=None):
    """{"rows": [...], "differences": [...], "provenance": {method: [...]}}, in percent; differences to the first. With
    "likelihood", {"rows", "differences"} in nats, where it was measured. names: as for `grouped`."""
    groups, rows, differences = grouped(paths, names), [], []
    (reference, first), *_ = groups.items()
    scores = {name: np.stack([r.scores for r in runs]) for name, runs in groups.items()}    # (seeds, items, metrics)
    for where, chosen in selections(first[0].items, per_role):
        for name, runs in groups.items():
            speeds = [r.tokens_per_s for r in runs if r.tokens_per_s]
            rows.append({"method": name, **where, "n": len(chosen), "seeds": len(runs),
                         **means_of(scores[name][:, chosen].mean(0)),
                         "std": deviations_of(runs, chosen), "trainable": runs[0].trainable,
                         "tokens_per_s": statistics.median(speeds) if speeds else None})
            if name != reference:
                differences.append({"method": name, "minus": reference, **where, "n": len(chosen),
                                    **differences_of(scores[name][:, chosen], scores[reference][:, chosen])})
    provenance = {name: [run.by for run in runs] for name, runs in groups.items()}
    result = {"rows": rows, "differences": differences, "provenance": provenance}
    if likelihoods := likelihoods_of(groups, per_role):
        result["likelihood"] = likelihoods
    return result


def tables(result):
    """The tables of `compare` as lists of rows of text, headings first, likelihoods before all; * where an interval of
    at least FEW_ITEMS items leaves 0 out."""
    has_facts = any("fact" in r for r in result["rows"])
    has_kinds = any(r["kind"] != "all" for r in result["rows"])
    metrics = [m for m in TITLES if m != "fact" or has_facts]
    titles = [TITLES[m] for m in metrics]
    keys = ["split", "role", *(["kind"] if has_kinds else [])]

    def score(r, metric):
        """A mean over the items, with its deviation over the seeds."""
        if metric not in r:
            return "-"
        return f"{r[metric]:.2f}" + (f" ± {r['std'][metric]:.2f}" if r["std"] else "")

    def difference(d, metric):
        """A difference with its interval."""
        if metric not in d:
            return "-"
        low, high = d[metric]["interval"]
        is_clear = not low <= 0 <= high and d["n"] >= FEW_ITEMS
        return f"{d[metric]['difference']:+.2f} [{low:+.2f}, {high:+.2f}]" + (" *" if is_clear else "")

    scores = [["method", *keys, "n", "seeds", *titles, "trainable", "tokens/s"]]
    for r in result["rows"]:
        cost = [f"{r['trainable']:,}" if r["trainable"] else "-",
                f"{r['tokens_per_s']:.0f}" if r["tokens_per_s"] else "-"]
        scores.append([r["method"], *(r[key] for key in keys), str(r["n"]), str(r["seeds"]),
                       *(score(r, metric) for metric in metrics), *cost])

    differences = [["difference, 95 % interval", *keys, *titles]]
    for d in result["differences"]:
        differences.append([f"{d['method']} - {d['minus']}", *(d[key] for key in keys),
                            *(difference(d, metric) for metric in metrics)])
    first = likelihood_tables(result["likelihood"], FEW_ITEMS) if "likelihood" in result else []
    return first + [t for t in (scores, differences) if len(t) > 1]


def paper_table(result, number):
    """The rows of `compare` in the shape of the paper's Table 1 (or 2), 3 (ROUGE-L by role) or 5."""
    cell = {(r["method"], r["split"], r["role"]): r for r in result["rows"] if r["kind"] == "all"}
    methods, splits, roles = (list(dict.fromkeys(keys)) for keys in zip(*cell))

    def show(method, split, role, metrics=METRICS):
        row = cell.get((method, split, role))
        return [f"{row[metric]:.2f}" if row else "-" for metric in metrics]

    if number in (1, 2):
        head = ["Models", *(f"{split} {TITLES[metric]}" for split in splits for metric in METRICS)]
        return [head] + [[m, *sum((show(m, split, "all") for split in splits), [])] for m in methods]

    pairs = [(m, split) for split in splits for m in methods]
    if number == 3:
        table = [["Methods", "Datasets", *roles[1:]]]
        for pair in pairs:
            table.append([*pair, *sum((show(*pair, role, ["rougeL"]) for role in roles[1:]), [])])
        return table
    table = [["Models", "Datasets", "BLEU-4", "ROUGE-L"]]
    return table + [[*pair, *show(*pair, "all", ["bleu4", "rougeL"])] for pair in pairs]


@one_line_errors("tools.compare")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs="+", required=True, metavar="RUN", help="run folders, or files of predictions")
    parser.add_argument("--per-role", action="store_true", help="a row for each role too")
    parser.add_argument("--table", type=int, choices=(1, 2, 3, 5), help="in the shape of this table of the paper")
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    args = parser.parse_args()
    result = compare(args.runs, args.per_role or args.table == 3)
    if args.format == "json":
        return print(json.dumps(result, ensure_ascii=False, indent=1))
    shown = [paper_table(result, args.table)] if args.table else tables(result)
    print("\n\n".join(render_table(rows, args.format == "markdown") for rows in shown) + "\n")
    print("\n".join(f"- {method}: {by}" for method, made in result["provenance"].items() for by in made))


if __name__ == "__main__":
    main()
