"""What the methods gain from one point of a study to another, such as from few training lines to many; and the point
that is best for each, such as its own learning rate."""
import statistics

import numpy as np

from tools.compare import difference, over_seeds, pair_up, selections
from tools.likelihoods import read_likelihood


def across(points):
    """What each variant gains in nats per token, as the right role, from a study's first point to each later one.

    points: {point: {variant: its runs}}. Returns rows {"method", "split", "kind", "from", "to", "n", "difference",
    "interval"}, on the test lines that both points read; intervals draw lines and seeds anew, together.
    """
    rows = []
    first, *later = points
    for point in later:
        for method, runs in points[point].items():
            for row in gains(points[first].get(method, []), runs):
                rows.append({"method": method, "from": first, "to": point, **row})
    return rows


def best_of_each(points, variants):
    """Each variant's own best point, where it has the fewest nats per token as the right role, on the mean of its runs.

    points: as for `across`. variants: those of the study, in its order. Returns rows {"method", "at", "edge", "right"};
    none where the first variant has no likelihoods, or the points were scored on different test lines, such as those of
    two or of six roles. A point counts for a variant if all of its runs there have likelihoods. edge: the best point is
    the first or the last of the variant's. right: `over_seeds` there. The point is chosen on the lines that methods are
    then compared on, which favours, a little, whoever was run at more points.
    """
    read = {}                                    # {variant: {point: for each of its runs {test line: nats}}}
    for variant in variants:
        for at, of_variants in points.items():
            runs = [nats_by_line(run) for run in of_variants.get(variant, [])]
            if runs and all(runs):
                read.setdefault(variant, {})[at] = runs
    lines = {frozenset(run) for at_points in read.values() for runs in at_points.values() for run in runs}
    if variants[0] not in read or len(lines) > 1:
        return []

    rows = []
    for variant, at_points in read.items():
        means = {}
        for at, runs in at_points.items():
            means[at] = [statistics.fmean(run.values()) for run in runs]
        best = min(means, key=lambda at: statistics.fmean(means[at]))
        edge = best in (next(iter(means)), list(means)[-1])
        rows.append({"method": variant, "at": best, "edge": edge, "right": over_seeds(means[best])})
    return rows


def gains(runs, others):
    """Rows {"split", "kind", "n", "difference", "interval"} of `others` minus `runs`, on the test lines that all of
    them read; none unless both sides have runs with likelihoods. Runs are named by their seeds."""
    mine, theirs, paired = pair_up([run.name for run in runs], [run.name for run in others])
    sides = [nats_by_line(runs[i]) for i in mine], [nats_by_line(others[i]) for i in theirs]
    if not all(side and all(side) for side in sides):
        return []
    items = sorted(set.intersection(*(set(nats) for side in sides for nats in side)))
    before, after = (np.array([[nats[item] for item in items] for nats in side]) for side in sides)

    rows = []
    for where, chosen in selections(items, per_role=False):
        rows.append({"split": where["split"], "kind": where["kind"], "n": len(chosen),
                     **difference(after[:, chosen], before[:, chosen], paired)})
    return rows


def nats_by_line(run):
    """{test line: nats per token as the right role} of a run; empty where not measured."""
    path = run / "likelihood.jsonl"
    if not path.is_file():
        return {}
    items, values = read_likelihood(path)
    return dict(zip(items, values[:, 0]))
