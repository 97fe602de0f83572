"""The tables of README.md and RESULTS.md, from results/*.json, which `tools.reproduce` writes.

    python -m tools.results

A table goes between "<!-- table NAME -->" and "<!-- end -->"; NAME is a study, "STUDY differences", or "STUDY kinds",
which has the facts of each kind of knowledge. None is typed.
"""
from console import render_table

import json
import re
from pathlib import Path

from files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def cell(mean_and_deviation):
    """"1.2 ± 0.3", "1.2" of one seed, "-" of nothing."""
    if not mean_and_deviation:
        return "-"
    mean, deviation = mean_and_deviation
    return f"{mean:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")


def score_cell(row, metric):
    """A metric of a row of `compare`, with its deviation over the seeds; "-" where there is none."""
    if not row or metric not in row:
        return "-"
    return cell((row[metric], row["std"] and row["std"][metric]))


def whole_splits(rows):
    """The rows of `compare` that are about all lines of a split, not about one kind of knowledge."""
    return [r for r in rows if r.get("kind", "all") == "all"]


def score_table(point):
    """Methods by ROUGE-L and BLEU-4 (or facts) of each split, how distinct the roles are, and what training took."""
    rows, runs = whole_splits(point["rows"]), point["runs"]
    splits = list(dict.fromkeys(r["split"] for r in rows))
    metrics = {"rougeL": "ROUGE-L", "bleu4": "BLEU-4"}
    if any("fact" in r for r in rows):
        metrics = {"rougeL": "ROUGE-L", "fact": "fact"}
    columns = ("as the wrong role", "role accuracy", "retrieval", "minutes")
    more = [m for m in columns if any(run[m] for run in runs.values())]
    heads = [f"{split.replace('_', '-')} {title}" for split in splits for title in metrics.values()]
    table = [["method", *heads, *more, "trainable", "seeds"]]
    for method in dict.fromkeys(r["method"] for r in rows):
        of = {r["split"]: r for r in rows if r["method"] == method}
        scores = [score_cell(of.get(split), metric) for split in splits for metric in metrics]
        run, row = runs.get(method, {}), next(iter(of.values()))
        trainable = f"{row['trainable'] / 1e6:.2f} M" if row["trainable"] else "-"
        table.append([method, *scores, *(cell(run.get(m)) for m in more), trainable, str(row["seeds"])])
    return table


def kind_table(point):
    """Methods by the facts of each kind of knowledge, in percent; None where the data name no kinds."""
    rows = [r for r in point["rows"] if r.get("kind", "all") != "all"]
    kinds = list(dict.fromkeys(r["kind"] for r in rows))
    table = [["fact", *kinds]]
    for method in dict.fromkeys(r["method"] for r in rows):
        of = {r["kind"]: r for r in rows if r["method"] == method}
        table.append([method, *(score_cell(of.get(kind), "fact") for kind in kinds)])
    return table if kinds else None


def difference_table(point):
    """What each method has over the first in ROUGE-L, with its paired interval; * where that leaves 0 out."""
    differences = whole_splits(point["differences"])
    splits = list(dict.fromkeys(d["split"] for d in differences))
    table = [["ROUGE-L, 95 % interval", *(s.replace("_", "-") for s in splits)]]
    for method, minus in dict.fromkeys((d["method"], d["minus"]) for d in differences):
        of = {d["split"]: d["rougeL"] for d in differences if d["method"] == method}
        shown = (f"{d['difference']:+.1f} [{d['interval'][0]:+.1f}, {d['interval'][1]:+.1f}]"
                 + " *" * (not d["interval"][0] <= 0 <= d["interval"][1]) for d in map(of.get, splits))
        table.append([f"{method} - {minus}", *shown])
    return table


def curve_table(points):
    """ROUGE-L of every method at every point."""
    rows = {at: whole_splits(point["rows"]) for at, point in points.items()}
    keys = list(dict.fromkeys((r["method"], r["split"]) for of_point in rows.values() for r in of_point))
    of = {(r["method"], r["split"], at): score_cell(r, "rougeL") for at, of_point in rows.items() for r in of_point}
    return [["ROUGE-L", "split", *points]] + [[m, s.replace("_", "-"), *(of.get((m, s, at), "-") for at in points)]
                                              for m, s in keys]


def conditions(result):
    """What a study was made with, in a line."""
    runs = [run for point in result["points"].values() for run in point["runs"].values()]
    commits = sorted({commit for run in runs for commit in run["commits"]})
    return f"`train.py {result['arguments']}`, torch {result['torch']}, commit {', '.join(commits)}."


def fill_tables():
    """Writes the tables of results/*.json into README.md and RESULTS.md."""
    tables = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text("utf8"))
        points = result["points"]
        table = curve_table(points) if len(points) > 1 else score_table(*points.values())
        tables[path.stem] = f"{render_table(table, True)}\n\n{conditions(result)}"
        if len(points) == 1:
            tables[f"{path.stem} differences"] = render_table(difference_table(*points.values()), True)
            kinds = kind_table(*points.values())
            if kinds:
                tables[f"{path.stem} kinds"] = render_table(kinds, True)
    for path in (ROOT / "README.md", ROOT / "RESULTS.md"):
        text = path.read_text("utf8")
        for name, table in tables.items():
            text = re.sub(rf"(<!-- table {name} -->\n).*?(<!-- end -->)",
                          lambda m, table=table: f"{m[1]}\n{table}\n\n{m[2]}", text, flags=re.S)
        write_text(path, text)


if __name__ == "__main__":
    fill_tables()
