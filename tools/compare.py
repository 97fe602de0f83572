"""Runs side by side, and whether their differences exceed what the choice of test items explains.

    python -m tools.compare --runs runs/lora runs/hycora-1 runs/hycora-2 [--per-role] [--format markdown|json]
    python -m tools.compare --runs runs/ind-lora runs/hycora --table 3             # in the shape of the paper's

A row is a method on a split: runs that differ only in their seed are one row, their mean and standard deviation. The
first is the one that the others are compared with; the untouched backbone is added if the first run's folder has its
answers to the same items. A .jsonl in the form of predictions.jsonl (a service's answers, say) may stand for a run.

First comes the likelihood of the references, if it was measured (tools/likelihoods.py). Where the data list the words
of a right answer, "fact" is the percentage of right answers, and each kind of knowledge that they name is a row.

The interval of a difference is a bootstrap over test items and seeds together: it shows how far other questions and
other seeds could move it. Two methods are compared seed by seed, on the seeds that both were trained with, if there are
any. With a single seed it covers the questions only.
"""
from console import Parser, one_line_errors, render_table

import json
import statistics

import numpy as np

from tools.compare_tables import paper_table, tables
from tools.likelihoods import compare_likelihoods, difference
from tools.scored_runs import TITLES, grouped


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


def pair_up(seeds, others):
    """Which runs of two methods are compared, by seed: (indices of `seeds`, indices of `others`, whether these
    are pairs). Those of the seeds that both have; all of them, unpaired, if there are none."""
    both = [seed for seed in seeds if seed in others]
    if not both:
        return list(range(len(seeds))), list(range(len(others))), False
    return [seeds.index(seed) for seed in both], [others.index(seed) for seed in both], True


def differences_of(scores, others, pairs):
    """{metric: `difference`} of the scores (seeds, items, metrics) of two methods; pairs: `pair_up`."""
    mine, theirs, paired = pairs
    found = {}
    for column, metric in enumerate(TITLES):
        found[metric] = difference(scores[mine][..., column], others[theirs][..., column], paired)
    return {metric: of_metric for metric, of_metric in found.items() if of_metric}


def likelihoods_of(groups, per_role, pairs):
    """`compare_likelihoods` of the methods of which every run has likelihoods; None where the first one has not.

    pairs: {method: `pair_up` with the first}. ValueError unless they are of the same lines.
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
    return compare_likelihoods(values, selections(items, per_role), pairs)


def compare(paths, per_role=False, names=None):
    """{"rows": [...], "differences": [...], "provenance": {method: [...]}}, in percent; differences to the first. With
    "likelihood", {"rows", "differences"} in nats, where it was measured. names: as for `grouped`."""
    groups, rows, differences = grouped(paths, names), [], []
    (reference, first), *_ = groups.items()
    seeds = {name: [run.seed for run in runs] for name, runs in groups.items()}
    pairs = {name: pair_up(of_method, seeds[reference]) for name, of_method in seeds.items()}
    scores = {name: np.stack([r.scores for r in runs]) for name, runs in groups.items()}    # (seeds, items, metrics)
    for where, chosen in selections(first[0].items, per_role):
        for name, runs in groups.items():
            speeds = [r.tokens_per_s for r in runs if r.tokens_per_s]
            rows.append({"method": name, **where, "n": len(chosen), "seeds": len(runs),
                         **means_of(scores[name][:, chosen].mean(0)),
                         "std": deviations_of(runs, chosen), "trainable": runs[0].trainable,
                         "tokens_per_s": statistics.median(speeds) if speeds else None})
            if name != reference:
                found = differences_of(scores[name][:, chosen], scores[reference][:, chosen], pairs[name])
                differences.append({"method": name, "minus": reference, **where, "n": len(chosen),
                                    "seeds": len(pairs[name][0]), **found})
    provenance = {name: [run.by for run in runs] for name, runs in groups.items()}
    result = {"rows": rows, "differences": differences, "provenance": provenance}
    if likelihoods := likelihoods_of(groups, per_role, pairs):
        result["likelihood"] = likelihoods
    return result


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
