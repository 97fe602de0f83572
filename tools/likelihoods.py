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
NATS = COLUMNS[:3]
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


def likelihood_tables(found):
    """The two tables of likelihoods side by side as rows of text, headings first."""
    has_roles = any(row["role"] != "all" for row in found["rows"])
    has_kinds = any(row["kind"] != "all" for row in found["rows"])
    keys = ["split", *(["role"] if has_roles else []), *(["kind"] if has_kinds else [])]

    rows = [["nats per token", *keys, "lines", "seeds", "right role", *COLUMNS[1:]]]
    for row in found["rows"]:
        cells = [number(row[column], ".3f") for column in NATS] + [number(row["role accuracy"], ".1f")]
        rows.append([row["method"], *(row[key] for key in keys), str(row["n"]), str(row["seeds"]), *cells])

    differences = [["difference, 95 % interval", *keys, "right role", *COLUMNS[1:]]]
    for d in found["differences"]:
        cells = [change(d[column], d["n"]) for column in NATS] + [change(d["role accuracy"], d["n"], "+.1f")]
        differences.append([f"{d['method']} - {d['minus']}", *(d[key] for key in keys), *cells])
    return [table for table in (rows, differences) if len(table) > 1]


def number(found, form):
    """A mean with its deviation over the seeds, as text."""
    if found is None:
        return "-"
    deviation = "" if found["std"] is None else f" ± {found['std']:{form}}"
    return f"{found['mean']:{form}}{deviation}"


def change(found, n, form="+.3f"):
    """A difference over n items with its interval, as text, "-" where there is none; * where an interval of at least
    FEW_ITEMS items leaves 0 out."""
    if found is None:
        return "-"
    low, high = (round(end, 9) for end in found["interval"])             # equal scores may differ by rounding
    star = " *" if n >= FEW_ITEMS and not low <= 0 <= high else ""
    return f"{found['difference']:{form}} [{low:{form}}, {high:{form}}]{star}"
