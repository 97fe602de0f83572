"""The tables of RESULTS.md and docs/studies, from results/*.json, which `tools.reproduce` writes.

    python -m tools.results

A table goes between "<!-- table NAME -->" and "<!-- end -->". NAME is a study, or with a word after it: "differences",
"nats" and "nats differences" (as the right role alone), "likelihood" (all of it), "kinds" (the facts of each kind of
knowledge; of a study with several points, nats too), "voice" (what a classifier hears, and each method minus
the first), "contrast" (Eq. 7 by epoch, and its floor), "scarcity" (HyCoRA's lead over independent LoRAs, and over a
shared one, by a role's training lines), or, of a study with several points, "across" (from the first point to the
others), "best" (each method at the point that is best for it), "best differences", "best likelihood" and "best voice"
(of these). "studies" are all studies, and how many of their runs are finished. "NAME of METHOD, METHOD" has these rows
alone. None is typed.
"""
from console import Parser, one_line_errors, render_table

import re

from files import ROOT, read_json, write_text
from tools.likelihoods import likelihood_tables
from tools.scarcity import PARTS, describe, lead_table, leads
from tools.studies import STUDIES, VARIANTS
from tools.tables import (
    across_table,
    best_table,
    contrast_table,
    curve_table,
    difference_curve_table,
    difference_table,
    kind_difference_table,
    kind_table,
    named_from_difference_table,
    named_from_table,
    nats_difference_table,
    nats_table,
    printed_metrics,
    runs_difference_table,
    score_table,
    voice_difference_table,
)

RESULTS = ROOT / "results"


def conditions(result):
    """What a study was made with, in a line."""
    runs = [run for point in result["points"].values() for run in point["runs"].values()]
    commits = sorted({commit for run in runs for commit in run["commits"]})
    more = "".join(f"; {variant}: `{arguments}`" for variant, arguments in result.get("more", {}).items())
    return f"`train.py {result['arguments']}`{more}, torch {result['torch']}, commit {', '.join(commits)}."


def pages():
    """The pages that have tables."""
    return [ROOT / "RESULTS.md", *sorted((ROOT / "docs/studies").glob("*.md"))]


def tables_of(name, result):
    """{mark: table in markdown} of a study's results."""
    points = result["points"]
    if len(points) > 1:
        metrics = printed_metrics(next(iter(points.values()))["rows"])
        differences = [render_table(difference_curve_table(points, metric), True) for metric in metrics]
        texts = {name: f"{render_table(curve_table(points), True)}\n\n{conditions(result)}",
                 f"{name} differences": "\n\n".join(differences),
                 f"{name} kinds": render_table(curve_table(points, by_kind=True), True),
                 f"{name} nats differences": render_table(difference_curve_table(points), True),
                 f"{name} across": render_table(across_table(result.get("across", [])), True),
                 f"{name} best": "Not compared: that takes the runs of all points at once."}
        if "at best" in result:
            texts |= tables_of(f"{name} best", result | {"points": {"best": result["at best"]}})
            texts[f"{name} best"] = render_table(best_table(result["best"], result["at best"]), True)
        return texts

    (point,) = points.values()
    tables = {"": [score_table(point)], " differences": [difference_table(point)]}
    if of_runs := runs_difference_table(point):
        tables[" differences"].append(of_runs)
    if "likelihood" in point:
        tables[" nats"] = [nats_table(point)]
        tables[" nats differences"] = [nats_difference_table(point)]
        tables[" likelihood"] = likelihood_tables(point["likelihood"])
    if kinds := kind_table(point):
        tables[" kinds"] = [kinds, kind_difference_table(point)]
    if contrast := contrast_table(point):
        tables[" contrast"] = [contrast]
    texts = {}
    for mark, of in tables.items():
        texts[name + mark] = "\n\n".join(render_table(table, True) for table in of)
    texts[name] += f"\n\n{conditions(result)}"
    texts[f"{name} voice"] = "Not measured, for want of scikit-learn."
    if "named from" in point:
        rows = point["named from"]
        with_lines = any("minus" in row for row in rows)
        differences = named_from_difference_table(rows) if with_lines else voice_difference_table(point)
        shown = [table for table in (named_from_table(rows), differences) if table]
        texts[f"{name} voice"] = "\n\n".join(render_table(table, True) for table in shown)

    # who gains from sharing, by the number of a role's training lines
    roles = point.get("by role", {"nats": {}, "lines": {}})
    compared = []
    for other in ("ind-lora", "lora"):
        if {"hycora", other} <= set(roles["nats"]) and len(roles["lines"]) >= 2 * PARTS:
            rows = leads(roles["lines"], roles["nats"][other], roles["nats"]["hycora"])
            compared.append(f"{render_table(lead_table(rows, f'hycora over {other}'), True)}\n\n{describe(rows)}")
    texts[f"{name} scarcity"] = "\n\n".join(compared)
    return texts


def study_table(results):
    """The studies, what they ask, and how many of their runs are in `results`, {study: result}; with links to pages."""
    table = [["study", "question", "runs finished"]]
    for name, study in STUDIES.items():
        finished = 0
        for point in results.get(name, {"points": {}})["points"].values():
            seeds = {row["method"]: row["seeds"] for row in point["rows"]}
            finished += sum(min(seeds.get(variant, 0), len(study.seeds)) for variant in study.variants)
        runs = len(study.points) * len(study.variants) * len(study.seeds)
        table.append([f"[{name}]", study.question, f"{finished} of {runs}"])
    pages = [f"[{name}]: docs/studies/{study.page}.md" for name, study in STUDIES.items()]
    return "\n".join([render_table(table, True), "", *pages])


def rows_of(table, methods):
    """The headings of one or more tables in markdown, and their rows that begin with one of `methods`, "a, b", without
    the line of `conditions`; all of it for None. ValueError for an unknown method."""
    if methods is None:
        return table
    methods = methods.split(", ")
    if unknown := set(methods) - set(VARIANTS):
        raise ValueError(f"a mark names {', '.join(unknown)}; choose {', '.join(VARIANTS)}")
    starts = tuple(f"| {method}{then}" for method in methods for then in (" | ", " - ", ": "))
    tables = []
    for part in table.split("\n\n"):
        if part.startswith("|"):                                         # not the line of `conditions`
            heading, rule, *rows = part.splitlines()
            tables.append("\n".join([heading, rule, *(row for row in rows if row.startswith(starts))]))
    return "\n\n".join(tables)


def fill_tables():
    """Writes the tables of results/*.json into the pages. ValueError for a mark of a table that cannot be."""
    results = {path.stem: read_json(path) for path in sorted(RESULTS.glob("*.json"))}
    tables = {"studies": study_table(results)}
    for name, result in results.items():
        tables |= tables_of(name, result)

    def fill(mark):
        name, _, methods = mark[2].partition(" of ")
        if name in tables:
            return f"{mark[1]}\n{rows_of(tables[name], methods or None)}\n\n{mark[3]}"
        if name.split()[0] in STUDIES:                                   # whose page was written before it was run
            return mark[0]
        raise ValueError(f"a mark names the table {name!r}, which there is not")

    for path in pages():
        text = path.read_text("utf8")
        write_text(path, re.sub(r"(<!-- table (.*?) -->\n).*?(<!-- end -->)", fill, text, flags=re.S))


@one_line_errors("tools.results")
def main():
    """The command."""
    Parser(description=__doc__.split("\n")[0]).parse_args()
    fill_tables()


if __name__ == "__main__":
    main()
