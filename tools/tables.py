"""The tables of the results as rows of text, each from a point of results/STUDY.json."""
import math
from collections import Counter

from tools.likelihoods import change, number
from tools.scored_runs import TITLES

OF_A_RUN = ("as the wrong role", "role accuracy", "retrieval", "retrieval, read as another", "loops", "minutes")
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}      # 97.5 % quantiles of Student's t, of so many seeds


def percent(found):
    """A percentage with its deviation over the seeds, as text; "-" of nothing."""
    return number(found, ".1f")


def whole_splits(rows):
    """The rows of `compare` that are about all lines of a split, not about one kind of knowledge."""
    return [r for r in rows if r["kind"] == "all"]


def printed_metrics(rows):
    """The metrics that the tables show: ROUGE-L, BLEU-4, and facts where there are any."""
    return ("rougeL", "bleu4", "fact") if any(r["fact"] for r in rows) else ("rougeL", "bleu4")


def nats_of(point):
    """{(method, split): "1.234 ± 0.005"}, the nats per token of the references as the right role; {} where unknown."""
    cells = {}
    for row in point.get("likelihood", {"rows": []})["rows"]:
        if row["kind"] == row["role"] == "all":
            cells[row["method"], row["split"]] = number(row["right"], ".3f")
    return cells


def score_table(point):
    """Methods by nats per token (if measured), ROUGE-L and BLEU-4 (or facts) of each split, how distinct the roles are,
    and what training took."""
    rows, runs = whole_splits(point["rows"]), point["runs"]
    splits = list(dict.fromkeys(r["split"] for r in rows))
    metrics = printed_metrics(rows)
    nats = nats_of(point)
    more = [m for m in OF_A_RUN if any(run.get(m) for run in runs.values())]
    names = [split.replace("_", "-") for split in splits]
    heads = [f"{name} nats" for name in names if nats]
    heads += [f"{name} {TITLES[metric]}" for name in names for metric in metrics]
    table = [["method", *heads, *more, "trainable", "seeds"]]
    for method in dict.fromkeys(r["method"] for r in rows):
        of = {r["split"]: r for r in rows if r["method"] == method}
        scores = [nats.get((method, split), "-") for split in splits if nats]
        scores += [percent(of[split][metric] if split in of else None) for split in splits for metric in metrics]
        run, row = runs.get(method, {}), next(iter(of.values()))
        trainable = f"{row['trainable'] / 1e6:.2f} M" if row["trainable"] else "-"
        table.append([method, *scores, *(percent(run.get(m)) for m in more), trainable, str(row["seeds"])])
    return table


def kind_table(point):
    """Methods by the facts of each kind of knowledge, in percent; None where the data name no kinds."""
    rows = [r for r in point["rows"] if r["kind"] != "all"]
    if not rows:
        return None
    return crossed("right facts, percent", parts(rows), rows, lambda r: percent(r["fact"]))


def kind_difference_table(point):
    """What each method has over the first in right facts of each kind of knowledge, with its interval."""
    rows = [{**d, "method": f"{d['method']} - {d['minus']}"} for d in point["differences"] if d["kind"] != "all"]
    return crossed("difference, 95 % interval", parts(rows), rows, lambda d: change(d["fact"], d["n"], "+.1f"))


def nats_table(point):
    """Methods by nats per token of the references as the right role, on each kind of knowledge, or split."""
    rows = [r for r in point["likelihood"]["rows"] if r["role"] == "all"]
    return crossed("nats per token", parts(rows), rows, lambda r: number(r["right"], ".3f"))


def nats_difference_table(point):
    """What each method has over the first in nats per token, on each kind of knowledge, or split, with its interval."""
    rows = [{**d, "method": f"{d['method']} - {d['minus']}"} for d in point["likelihood"]["differences"]
            if d["role"] == "all"]
    return crossed("difference, 95 % interval", parts(rows), rows, lambda d: change(d["right"], d["n"]))


def named_from_table(rows):
    """How often a classifier names the role, in percent: from each method's answers, from the references (ceiling),
    from the question alone, and by chance."""
    return by_part("role named from", rows, lambda row: percent(row["accuracy"]))


def named_from_difference_table(rows):
    """How much more often the role is named from each method's answers than from the first's, with its interval."""
    compared = [row | {"text": f"{row['text']} - {row['minus']}"} for row in rows if "minus" in row]
    return by_part("difference, 95 % interval", compared, lambda row: change(row, row["n"], "+.1f"))


def by_part(title, rows, cell):
    """{"text": name} rows against split and language, as rows of text, headings first; `cell` of each."""
    columns = dict.fromkeys((row["split"], row["language"]) for row in rows)
    table = [[title, *(f"{split.replace('_', '-')}, {language}" for split, language in columns)]]
    for text in dict.fromkeys(row["text"] for row in rows):
        of = {(row["split"], row["language"]): cell(row) for row in rows if row["text"] == text}
        table.append([text, *(of.get(column, "-") for column in columns)])
    return table


def parts(rows):
    """{title: (split, kind)} of the parts of the test lines that rows are about: of a split the kinds of knowledge that
    it has, else the split."""
    with_kinds = {row["split"] for row in rows if row["kind"] != "all"}
    return {part_of(row): (row["split"], row["kind"]) for row in rows
            if (row["kind"] == "all") != (row["split"] in with_kinds)}


def whole_of_several_kinds(rows):
    """{(split, "all")} of the splits whose lines are of more than one kind of knowledge."""
    kinds = {(row["split"], row["kind"]) for row in rows if row["kind"] != "all"}
    return {(split, "all") for split, n in Counter(split for split, _ in kinds).items() if n > 1}


def crossed(title, columns, rows, cell):
    """Methods by columns: rows of text from rows of `compare`, `cell` of each."""
    table = [[title, *columns]]
    for method in dict.fromkeys(r["method"] for r in rows):
        of = {(r["split"], r["kind"]): cell(r) for r in rows if r["method"] == method}
        table.append([method, *(of.get(where, "-") for where in columns.values())])
    return table


def difference_table(point):
    """What each method has over the first in every metric that is shown, with its interval."""
    differences = whole_splits(point["differences"])
    columns = [(split, metric) for split in dict.fromkeys(d["split"] for d in differences)
               for metric in printed_metrics(differences)]
    heads = [f"{split.replace('_', '-')} {TITLES[metric]}" for split, metric in columns]
    table = [["difference, 95 % interval", *heads]]
    for method, minus in dict.fromkeys((d["method"], d["minus"]) for d in differences):
        of = {d["split"]: d for d in differences if d["method"] == method}
        cells = [change(of[split][metric], of[split]["n"], "+.1f") for split, metric in columns]
        table.append([f"{method} - {minus}", *cells])
    return table


def runs_difference_table(point):
    """`seeds_difference_table` of the scores of which a run keeps one number; None without any."""
    runs = point["runs"]
    first = next(iter(runs), None)
    shown = [m for m in OF_A_RUN if m not in ("role accuracy", "minutes") and first and runs[first].get(m)]
    if shown:
        return seeds_difference_table({method: {m: run.get(m) for m in shown} for method, run in runs.items()}, point)


def voice_difference_table(point):
    """`seeds_difference_table` of the voice, for results of which the lines were not kept."""
    parts_of = {method: {} for method in point["runs"]}
    for row in point["named from"]:
        if row["text"] in parts_of:
            parts_of[row["text"]][f"{row['split'].replace('_', '-')}, {row['language']}"] = row["accuracy"]
    return seeds_difference_table(parts_of, point)


def seeds_difference_table(scores, point):
    """What each method has over the first, of {method: {column: `over_seeds`}}; None if no seeds say so. The intervals
    are over the seeds alone, unpaired: Student's, with the variances of both sides and the degrees of freedom of the
    side with fewer seeds. No star: they leave the lines out."""
    seeds = {row["method"]: row["seeds"] for row in point["rows"]}
    first = next(iter(scores))
    table = [["difference, 95 % interval over seeds", *scores[first]]]
    for method, of_method in list(scores.items())[1:]:
        fewer = min(seeds[method], seeds[first])
        cells = []
        for column, other in scores[first].items():
            mine = of_method.get(column)
            if not mine or not other or None in (mine["std"], other["std"]) or mine["std"] == other["std"] == 0:
                cells.append("-")
                continue
            gap = mine["mean"] - other["mean"]
            variance = mine["std"] ** 2 / seeds[method] + other["std"] ** 2 / seeds[first]
            half = STUDENT[min(fewer, 5)] * math.sqrt(variance)
            cells.append(change({"difference": gap, "interval": [gap - half, gap + half]}, 0, "+.1f"))       # no star
        if set(cells) != {"-"}:
            table.append([f"{method} - {first}", *cells])
    return table if len(table) > 1 else None


def contrast_table(point):
    """Eq. 7 by epoch: of every method with a contrastive loss its mean, the floor that Eq. 7 had in those batches, and
    what Eq. 6 added above it in the last epoch. None where it is unknown."""
    of_methods = {method: run["contrast"] for method, run in point["runs"].items() if run.get("contrast")}
    if not of_methods:
        return None
    epochs = sorted({epoch for of in of_methods.values() for epoch in of}, key=int)
    heads = [f"epoch {epoch}" for epoch in epochs]
    table = [["contrastive loss in nats (its floor)", *heads, "λ · (loss - floor), last epoch"]]
    for method, of in of_methods.items():
        cells = dict.fromkeys(epochs, "-")
        for epoch, found in of.items():
            cells[epoch] = f"{number(found['loss'], '.3f')} ({found['floor']['mean']:.3f})"
        last = of.get(epochs[-1], {"weighted": None})
        table.append([method, *cells.values(), number(last["weighted"], ".4f")])
    return table


def across_table(rows):
    """What each method gains in nats from a study's first point to its others, on each kind of knowledge, or split."""
    named = [{**row, "method": f"{row['method']}: {row['to']} - {row['from']}"} for row in rows]
    return crossed("difference, 95 % interval", parts(named), named, lambda d: change(d, d["n"]))


def best_table(rows, at_best):
    """Each method at its best point of a study (`best_of_each`), and what it has there over the first at its best, in
    nats per token of each split; (edge): the first or the last of its points. at_best: the point of these runs."""
    differences = [d for d in whole_splits(at_best["likelihood"]["differences"]) if d["role"] == "all"]
    splits = list(dict.fromkeys(d["split"] for d in differences))
    heads = [f"{split.replace('_', '-')}, minus {rows[0]['method']} at its best" for split in splits]
    table = [["method", "best at", "nats per token", *heads]]
    for row in rows:
        of = {d["split"]: change(d["right"], d["n"]) for d in differences if d["method"] == row["method"]}
        at = f"{row['at']} (edge)" if row["edge"] else row["at"]
        table.append([row["method"], at, number(row["right"], ".3f"), *(of.get(split, "-") for split in splits)])
    return table


def curve_table(points, by_kind=False):
    """Every method at every point: nats per token, if measured, and ROUGE-L of each split; or, by kind of knowledge,
    nats and right facts. No row where there are no kinds."""
    metric = "fact" if by_kind else "rougeL"

    def chosen(rows):
        return [row for row in rows if (row["kind"] != "all") == by_kind]

    cells = {}                                                           # {(method, part, measure): {point: text}}
    for at, point in points.items():
        for row in chosen(point.get("likelihood", {"rows": []})["rows"]):
            if row["role"] == "all":
                cells.setdefault((row["method"], part_of(row), "nats"), {})[at] = number(row["right"], ".3f")
    for at, point in points.items():
        for row in chosen(point["rows"]):
            cells.setdefault((row["method"], part_of(row), TITLES[metric]), {})[at] = percent(row[metric])

    table = [["method", "kind" if by_kind else "split", "measure", *points]]
    for key, of in cells.items():
        table.append([*key, *(of.get(at, "-") for at in points)])
    return table


def difference_curve_table(points, metric="right"):
    """What each method has over the first at every point, on each kind of knowledge and split: in nats per token
    ("right"), or in a metric of `compare`."""
    cells = {}                                                           # {(methods, part): {point: text}}
    for at, point in points.items():
        found = point.get("likelihood", {"differences": []}) if metric == "right" else point
        rows = [d for d in found["differences"] if d["role"] == "all" and d[metric]]
        shown = set(parts(rows).values()) | whole_of_several_kinds(rows)
        for d in rows:
            if (d["split"], d["kind"]) in shown:
                key = (f"{d['method']} - {d['minus']}", part_of(d))
                cells.setdefault(key, {})[at] = change(d[metric], d["n"], "+.3f" if metric == "right" else "+.1f")

    table = [[f"difference{'' if metric == 'right' else f' in {TITLES[metric]}'}, 95 % interval", "lines", *points]]
    for key, of in cells.items():
        table.append([*key, *(of.get(at, "-") for at in points)])
    return table


def part_of(row):
    """The kind of knowledge that a row is about, or its split."""
    return row["kind"] if row["kind"] != "all" else row["split"].replace("_", "-")
