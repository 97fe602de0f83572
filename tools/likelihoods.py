"""The likelihoods of runs side by side: the first tables of tools.compare.

    right           nats per token of the references as their own role; lower is better
    wrong - right   how much less likely they are as other roles
    zero - right    how much less likely as no role: what the role-specific part contributes
    role accuracy   percent of lines that are likelier as their own role than as each of the others that read them
"""
import math
from pathlib import Path

import numpy as np

from files import check_numbers, read_jsonl, reading

COLUMNS = ("right", "wrong - right", "zero - right", "role accuracy")
FEW_ITEMS = 30                          # a bootstrap of fewer is overconfident: no *


def file_beside(predictions):
    """Where the likelihoods are that belong to a file of predictions."""
    path = Path(predictions)
    beside = path.with_suffix(".likelihood.jsonl")
    if path.name.startswith("predictions") and not beside.is_file():     # as in a run folder
        return path.with_name(path.name.replace("predictions", "likelihood", 1))
    return beside


def read_likelihood(path):
    """(items, values) of a likelihood.jsonl: [(split, role, question, kind)] in sorted order, and (n, COLUMNS) numbers,
    NaN where there is no wrong role. FileError if a line is none."""
    found = []
    for place, line in read_jsonl(path):
        with reading(place, '{"split", "role", "question", "right", "wrong": [...], "zero"}'):
            nats = dict(enumerate([line["right"], line["zero"], *line["wrong"]]))
            check_numbers(nats, dict.fromkeys(nats, (float, 0, 1e6)))
            item = (line["split"], line["role"], line["question"], line.get("kind", ""))
            if not all(isinstance(text, str) for text in item):
                raise ValueError(f"one of {item} is not text")
            found.append((item, values_of(line["right"], line["wrong"], line["zero"])))
    found.sort(key=lambda pair: pair[0])
    return [item for item, _ in found], np.array([values for _, values in found])


def values_of(right, wrong, zero):
    """A line's number in each of COLUMNS."""
    if not wrong:
        return right, math.nan, zero - right, math.nan
    return right, sum(wrong) / len(wrong) - right, zero - right, 100.0 * (right < min(wrong))


def likelihood_tables(found, gains=("wrong - right", "zero - right")):
    """The two tables of likelihoods side by side as rows of text, headings first. gains: as for `method_tables`."""
    columns = {"right": ("right role", ".3f"), "wrong - right": ("wrong - right", ".3f"),
               "zero - right": ("zero - right", ".3f"), "role accuracy": ("role accuracy", ".1f")}
    return method_tables(found, "nats per token", "lines", columns, gains=gains)


def method_tables(found, title, count, columns, keys=("split",), gains=()):
    """The rows of `tools.compare.side_by_side`, and its differences if there are any, as text, headings first.

    title, count: headings of the methods and of the number of items. columns: {column: (heading, format)}. keys: what
    a row is about; "role" and "kind" too where rows differ in them. gains: columns that are differences themselves, so
    that their means are shown with the interval that they have.
    """
    differ = [key for key in ("role", "kind") if any(row[key] != "all" for row in found["rows"])]
    keys = [*keys, *(key for key in differ if key not in keys)]
    headings = [heading for heading, _ in columns.values()]

    rows = [[title, *keys, count, "seeds", *headings]]
    for row in found["rows"]:
        cells = [number(row[column], form, column in gains) for column, (_, form) in columns.items()]
        rows.append([row["method"], *(row[key] for key in keys), str(row["n"]), str(row["seeds"]), *cells])

    differences = [["difference, 95 % interval", *keys, *headings]]
    for d in found["differences"]:
        cells = [change(d[column], d["n"], f"+{form}") for column, (_, form) in columns.items()]
        differences.append([f"{d['method']} - {d['minus']}", *(d[key] for key in keys), *cells])
    return [table for table in (rows, differences) if len(table) > 1]


def number(found, form, interval=False):
    """A mean with its deviation over the seeds, as text; and with its 95 % interval, if asked and known."""
    if found is None:
        return "-"
    text = f"{found['mean']:{form}}"
    if found["std"] is not None:
        text += f" ± {found['std']:{form}}"
    if interval and "interval" in found:
        low, high = found["interval"]
        text += f" [{low:{form}}, {high:{form}}]"
    return text


def change(found, n, form="+.3f"):
    """A difference over n items with its interval, as text, "-" where there is none; * where an interval of at least
    FEW_ITEMS items leaves 0 out."""
    if found is None:
        return "-"
    low, high = (round(end, 9) + 0.0 for end in found["interval"])       # equal scores may differ by rounding; no -0.0
    star = " *" if n >= FEW_ITEMS and not low <= 0 <= high else ""
    return f"{found['difference']:{form}} [{low:{form}}, {high:{form}}]{star}"
