"""The results of tools.compare as tables: its own, and in the shape of the paper's."""
from metrics import METRICS
from tools.likelihoods import likelihood_tables, method_tables
from tools.scored_runs import TITLES


def tables(result):
    """The tables of `compare` as lists of rows of text, headings first, likelihoods before all."""
    shown = {metric: (title, ".2f") for metric, title in TITLES.items()}
    if not any(row["fact"] for row in result["rows"]):
        del shown["fact"]
    scores, *differences = method_tables(result, "method", "n", shown, ("split", "role"))
    scores[0] += ["trainable", "tokens/s"]
    for line, row in zip(scores[1:], result["rows"]):
        line.append(f"{row['trainable']:,}" if row["trainable"] else "-")
        line.append(f"{row['tokens_per_s']:.0f}" if row["tokens_per_s"] else "-")
    first = likelihood_tables(result["likelihood"]) if "likelihood" in result else []
    return [*first, scores, *differences]


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
