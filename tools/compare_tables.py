"""The results of tools.compare as tables: its own, and in the shape of the paper's."""
from metrics import METRICS
from tools.likelihoods import change, likelihood_tables, number
from tools.scored_runs import TITLES


def tables(result):
    """The tables of `compare` as lists of rows of text, headings first, likelihoods before all."""
    has_facts = any(r["fact"] for r in result["rows"])
    has_kinds = any(r["kind"] != "all" for r in result["rows"])
    metrics = [m for m in TITLES if m != "fact" or has_facts]
    titles = [TITLES[m] for m in metrics]
    keys = ["split", "role", *(["kind"] if has_kinds else [])]

    scores = [["method", *keys, "n", "seeds", *titles, "trainable", "tokens/s"]]
    for r in result["rows"]:
        cost = [f"{r['trainable']:,}" if r["trainable"] else "-",
                f"{r['tokens_per_s']:.0f}" if r["tokens_per_s"] else "-"]
        scores.append([r["method"], *(r[key] for key in keys), str(r["n"]), str(r["seeds"]),
                       *(number(r[metric], ".2f") for metric in metrics), *cost])

    differences = [["difference, 95 % interval", *keys, *titles]]
    for d in result["differences"]:
        differences.append([f"{d['method']} - {d['minus']}", *(d[key] for key in keys),
                            *(change(d[metric], d["n"], "+.2f") for metric in metrics)])
    first = likelihood_tables(result["likelihood"]) if "likelihood" in result else []
    return first + [t for t in (scores, differences) if len(t) > 1]


def paper_table(result, table_number):
    """The rows of `compare` in the shape of the paper's Table 1 (or 2), 3 (ROUGE-L by role) or 5."""
    cell = {(r["method"], r["split"], r["role"]): r for r in result["rows"] if r["kind"] == "all"}
    methods, splits, roles = (list(dict.fromkeys(keys)) for keys in zip(*cell))

    def show(method, split, role, metrics=METRICS):
        row = cell.get((method, split, role))
        return [f"{row[metric]['mean']:.2f}" if row else "-" for metric in metrics]

    if table_number in (1, 2):
        head = ["Models", *(f"{split} {TITLES[metric]}" for split in splits for metric in METRICS)]
        return [head] + [[m, *sum((show(m, split, "all") for split in splits), [])] for m in methods]

    pairs = [(m, split) for split in splits for m in methods]
    if table_number == 3:
        table = [["Methods", "Datasets", *roles[1:]]]
        for pair in pairs:
            table.append([*pair, *sum((show(*pair, role, ["rougeL"]) for role in roles[1:]), [])])
        return table
    table = [["Models", "Datasets", "BLEU-4", "ROUGE-L"]]
    return table + [[*pair, *show(*pair, "all", ["bleu4", "rougeL"])] for pair in pairs]
