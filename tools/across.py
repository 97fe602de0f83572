"""What the methods gain from one point of a study to another, such as from few training lines to many; and each at the
point that is best for it, such as its own learning rate."""
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


def best_of_each(points):
    """Each variant at its own best point, where it has the fewest nats per token as the right role, on the mean of its
    lines and runs; and what it has there over the first variant at that one's best.

    Returns rows {"method", "at", "edge", "right", "gains"}. edge: it was not run on both sides of that point. right:
    `over_seeds`. gains: the rows of `gains`, [] for the first variant. The point is chosen on the lines that the
    difference is about, so it favours, a little, whoever was run at more points.
    """
    nats = {}                                                            # {variant: {point: means of its runs}}
    for at, of_variants in points.items():
        for variant, runs in of_variants.items():
            lines = [nats_by_line(run) for run in runs]
            if all(lines):
                nats.setdefault(variant, {})[at] = [statistics.mean(of_run.values()) for of_run in lines]

    rows = []
    for variant, at_points in nats.items():
        best = min(at_points, key=lambda at: statistics.mean(at_points[at]))
        over_first = []
        if rows:
            first = rows[0]
            over_first = gains(points[first["at"]][first["method"]], points[best][variant])
        edge = best in (next(iter(at_points)), list(at_points)[-1])
        rows.append({"method": variant, "at": best, "edge": edge, "right": over_seeds(at_points[best]),
                     "gains": over_first})
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
