"""Runs side by side, and whether their differences exceed what the choice of test items explains.

    python -m tools.compare --runs runs/lora runs/hycora-1 runs/hycora-2 [--per-role] [--by-question]
    python -m tools.compare --runs runs/ind-lora runs/hycora --table 3             # in the shape of the paper's

A row is a method on a split: runs that differ only in their seed are one row, their mean and standard deviation. The
first is the one that the others are compared with; the untouched backbone is added if the first run's folder has its
answers to the same items. A .jsonl in the form of predictions.jsonl (a service's answers, say) may stand for a run.

First comes the likelihood of the references, if it was measured (tools/likelihoods.py). Where the data list the words
of a right answer, "fact" is the percentage of right answers, and each kind of knowledge that they name is a row.

The interval of a difference is a bootstrap over test items and seeds together: it shows how far other questions and
other seeds could move it. Two methods are compared seed by seed, on the seeds that both were trained with, if there are
any. With a single seed it covers the lines only. --by-question draws questions in place of lines: in `general` several
roles are asked the same, and their lines are not independent.
"""
from console import Parser, one_line_errors, render_table

import json
import statistics

import numpy as np

from metrics import bootstrap_difference
from tools.compare_tables import paper_table, tables
from tools.likelihoods import COLUMNS
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


def pair_up(seeds, others):
    """Which runs of two methods are compared, by seed: (indices of `seeds`, indices of `others`, whether these
    are pairs). Those of the seeds that both have; all of them, unpaired, if there are none."""
    both = [seed for seed in seeds if seed in others]
    if not both:
        return list(range(len(seeds))), list(range(len(others))), False
    return [seeds.index(seed) for seed in both], [others.index(seed) for seed in both], True


def summary(values, groups):
    """`over_seeds` of the means of values (seeds, items), on the items that have a value, with their "interval"; None
    without any."""
    known = ~np.isnan(values).any(0)
    if not known.any():
        return None
    values = values[:, known]
    nothing = np.zeros((1, values.shape[1]))
    interval = bootstrap_difference(values, nothing, groups=groups[known])
    return over_seeds(values.mean(1).tolist()) | {"interval": interval}


def over_seeds(values):
    """{"mean", "std"} of the seeds' values, std None of a single one; None of no value."""
    if not values:
        return None
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def difference(values, others, same_seeds=False, groups=None):
    """{"difference", "interval"} of two methods' values (seeds, items); None without any. groups: `drawn_together`."""
    known = ~np.isnan(values).any(0) & ~np.isnan(others).any(0)
    if not known.any():
        return None
    values = values[:, known]
    others = others[:, known]
    groups = groups if groups is None else groups[known]
    interval = bootstrap_difference(values, others, same_seeds=same_seeds, groups=groups)
    return {"difference": (values.mean() - others.mean()).item(), "interval": interval}


def drawn_together(items, by_question):
    """The groups of items for `bootstrap_difference`: their questions, or each item its own."""
    return np.array([question for _, _, question, _ in items]) if by_question else np.arange(len(items))


def side_by_side(methods, columns, chosen_items, pairs, groups):
    """{"rows", "differences"}: a `summary` of each column for each method, and its `difference` to the first method.

    methods: {method: values (seeds, items, columns)}, NaN where an item has none. chosen_items: `selections`.
    pairs: {method: `pair_up` with the first}. groups: `drawn_together`. Intervals draw these and seeds anew, together.
    """
    rows = []
    differences = []
    reference = next(iter(methods))
    for where, chosen in chosen_items:
        of_chosen = groups[chosen]
        for name, of_method in methods.items():
            values = of_method[:, chosen]
            row = {"method": name, **where, "n": len(chosen), "seeds": len(values)}
            for c, column in enumerate(columns):
                row[column] = summary(values[..., c], of_chosen)
            rows.append(row)

            if name != reference:
                mine, theirs, paired = pairs[name]
                values = values[mine]
                others = methods[reference][theirs][:, chosen]
                row = {"method": name, "minus": reference, **where, "n": len(chosen), "seeds": len(mine)}
                for c, column in enumerate(columns):
                    row[column] = difference(values[..., c], others[..., c], paired, of_chosen)
                differences.append(row)
    return {"rows": rows, "differences": differences}


def likelihoods_of(groups, per_role, pairs, by_question):
    """`side_by_side` in nats of the methods of which every run has likelihoods; None where the first one has not.
    ValueError unless they are of the same lines."""
    measured = {name: runs for name, runs in groups.items() if all(run.read for run in runs)}
    first = next(iter(groups))
    if first not in measured:
        return None
    items, _ = groups[first][0].read
    for name, runs in measured.items():
        if any(run.read[0] != items for run in runs):
            raise ValueError(f"the likelihoods of {name} are of other test lines than those of {first}: measure both "
                             f"on the same lines")
    values = {name: np.stack([run.read[1] for run in runs]) for name, runs in measured.items()}
    return side_by_side(values, COLUMNS, selections(items, per_role), pairs, drawn_together(items, by_question))


def compare(paths, per_role=False, names=None, by_question=False):
    """{"rows": [...], "differences": [...], "provenance": {method: [...]}}, in percent; differences to the first. With
    "likelihood", {"rows", "differences"} in nats, where it was measured. names: as for `grouped`. by_question: as for
    `drawn_together`."""
    groups = grouped(paths, names)
    reference = next(iter(groups))
    seeds = {name: [run.seed for run in runs] for name, runs in groups.items()}
    pairs = {name: pair_up(of_method, seeds[reference]) for name, of_method in seeds.items()}

    values = {name: np.stack([run.scores for run in runs]) for name, runs in groups.items()}
    items = groups[reference][0].items
    result = side_by_side(values, TITLES, selections(items, per_role), pairs, drawn_together(items, by_question))
    for row in result["rows"]:
        runs = groups[row["method"]]
        speeds = [run.tokens_per_s for run in runs if run.tokens_per_s]
        row["trainable"] = runs[0].trainable
        row["tokens_per_s"] = statistics.median(speeds) if speeds else None

    result["provenance"] = {name: [run.by for run in runs] for name, runs in groups.items()}
    if likelihoods := likelihoods_of(groups, per_role, pairs, by_question):
        result["likelihood"] = likelihoods
    return result


@one_line_errors("tools.compare")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs="+", required=True, metavar="RUN", help="run folders, or files of predictions")
    parser.add_argument("--per-role", action="store_true", help="a row for each role too")
    parser.add_argument("--by-question", action="store_true", help="intervals draw questions anew in place of lines")
    parser.add_argument("--table", type=int, choices=(1, 2, 3, 5), help="in the shape of this table of the paper")
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    args = parser.parse_args()
    result = compare(args.runs, args.per_role or args.table == 3, by_question=args.by_question)
    if args.format == "json":
        return print(json.dumps(result, ensure_ascii=False, indent=1))
    shown = [paper_table(result, args.table)] if args.table else tables(result)
    print("\n\n".join(render_table(rows, args.format == "markdown") for rows in shown) + "\n")
    print("\n".join(f"- {method}: {by}" for method, made in result["provenance"].items() for by in made))


if __name__ == "__main__":
    main()
