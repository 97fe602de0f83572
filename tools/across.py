"""What the methods gain from one point of a study to another, such as from few training lines to many."""
import numpy as np

from tools.compare import difference, pair_up, selections
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
