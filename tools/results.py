"""The tables of README.md and RESULTS.md, from results/*.json, which `tools.reproduce` writes.

    python -m tools.results

A table goes between "<!-- table NAME -->" and "<!-- end -->"; NAME is a study, "STUDY likelihood", "STUDY differences",
or "STUDY kinds", which has the facts of each kind of knowledge. None is typed.
"""
from console import render_table

import json
import re
from pathlib import Path

from files import write_text
from tools.compare_tables import FEW_ITEMS
from tools.likelihoods import likelihood_tables
from tools.tables import curve_table, difference_table, kind_table, score_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


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
            (point,) = points.values()
            tables[f"{path.stem} differences"] = render_table(difference_table(point), True)
            if "likelihood" in point:
                both = likelihood_tables(point["likelihood"], FEW_ITEMS)
                tables[f"{path.stem} likelihood"] = "\n\n".join(render_table(table, True) for table in both)
            kinds = kind_table(point)
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
