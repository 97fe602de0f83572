"""Models, scores and answers as text: the tables of train.py and eval.py.

Before -> after stands for the untouched backbone -> the trained model, in percent.
"""
from console import display_width, pad, printable, render_table

import math

from metrics import METRICS

MEASURES = ("swap", "likelihood", "retrieval_top1", "retrieval_swapped")        # of scores.json, beside the metrics


# ------------------------------------------------------------------------------------------------------------ models
def count_trainable(*modules):
    """Trainable parameters of some modules."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def describe_model(model):
    """The adapted parts of a HyperModel, as text: kind, count, shapes, sources of A and B, trainable parameters."""
    def row(*cells):
        return "{:<18}{:>8}  {:<14}{:<18}{:<18}{:>12}".format(*cells)

    # each kind of linear, with the heads that generate its matrices
    sources = model.sources
    lines = [row("adapted", "linears", "W_0", f"A: {sources['A']}", f"B: {sources['B']}", "trainable")]
    heads = model.hyper.heads if model.hyper else {}
    for kind, linears in model.adapted.items():
        of_kind = [heads[name] for name in (f"{kind}_A", f"{kind}_B") if name in heads]
        shapes = [linears[0].base.weight.shape, *linears[0].shapes.values()]
        texts = [" x ".join(map(str, shape)) for shape in shapes]
        lines.append(row(kind, len(linears), *texts, f"{count_trainable(*linears, *of_kind):,}"))

    # the rest, and the sums
    dtype = str(model.backbone.dtype).removeprefix("torch.")
    trainable = count_trainable(model)
    summary = {f"frozen, {dtype}": sum(p.numel() for p in model.parameters()) - trainable}
    if model.hyper:
        summary["encoder of the hyper-network"] = count_trainable(model.hyper) - count_trainable(heads)
        summary["contrastive projections"] = count_trainable(model.projections)
    summary["trainable in all, fp32"] = trainable
    lines += [f"{name:<78}{number:>12,}" for name, number in summary.items()]
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- tables
def columns_of(scores, compare):
    """The metrics that a table shows: to compare, voice and fact (BLEU-4 where no fact is measured), else all."""
    has_facts = any("fact" in of_split["overall"] for of_split in scores["splits"].values())
    if compare:
        return ("rougeL", "fact") if has_facts else ("rougeL", "bleu4")
    return (*METRICS, "fact") if has_facts else METRICS


def interval_cell(scores, metric):
    """"[low, high]" of a metric's 95 % interval; empty where there is none."""
    low, high = scores.get("interval", {}).get(metric, (math.nan, math.nan))
    return "" if math.isnan(low) else f"[{low:.1f}, {high:.1f}]"


def score_cells(new, before, columns):
    """The cells of one line in one split: with the scores `before`, each column before -> after; else n, the columns,
    and the intervals of ROUGE-L and of the facts. new: None where there is nothing to show."""
    if before is not None:
        if new is None:
            return ["-"] * len(columns)
        return [f"{before[m]:5.1f} -> {new[m]:5.1f}" if m in new else "-" for m in columns]

    with_interval = [metric for metric in ("rougeL", "fact") if metric in columns]
    if new is None:
        return ["-"] * (1 + len(columns) + len(with_interval))
    cells = [f"{new[m]:.2f}" if m in new else "-" for m in columns]
    return [str(new["n"]), *cells, *(interval_cell(new, metric) for metric in with_interval)]


def headings_of(columns, compare):
    """The headings over `score_cells`."""
    if compare:
        return list(columns)
    return ["n", *columns, *(f"{metric}, 95 %" for metric in ("rougeL", "fact") if metric in columns)]


def mean_over_roles(of_split):
    """The unweighted means of a split's roles."""
    of_roles = list(of_split["roles"].values())
    means = {"n": len(of_roles)}
    for metric in (*METRICS, "fact"):
        values = [scores[metric] for scores in of_roles if metric in scores]
        if values:
            means[metric] = sum(values) / len(values)
    return means


def table(scores, before=None):
    """Scores as text: likelihood, then metrics per role and split; with the scores `before`, before -> after. Then the
    other measures."""
    splits = scores["splits"]
    compare = before is not None
    columns = columns_of(scores, compare)
    headings = headings_of(columns, compare)

    def row(title, select):
        """One line; select(a split's scores): those to show."""
        cells = []
        for split, of_split in splits.items():
            old = select(before["splits"][split]) if compare else None
            new = select(of_split)
            cells += score_cells(new, (old or {}) if compare else None, columns)
        return [title, *cells]

    # two lines of headings: the splits, and under each its columns
    rows = [[""], ["", *headings * len(splits)]]
    roles = {}
    for split, of_split in splits.items():
        rows[0] += [split] + [""] * (len(headings) - 1)
        roles |= dict.fromkeys(of_split["roles"])

    for role in roles:
        rows.append(row(role, lambda of_split, role=role: of_split["roles"].get(role)))
    rows.append(row("mean over roles", mean_over_roles))
    rows.append(row("all lines", lambda of_split: of_split["overall"]))

    lines = []
    if likelihoods := likelihood_table(scores):
        lines += [likelihoods, ""]
    lines.append(render_table(rows))
    if kinds := kind_table(scores, before):
        lines += ["", kinds, ""]
    return "\n".join([*lines, *count_loops(splits), *other_measures(scores)])


def likelihood_table(scores):
    """Nats per token of the references as right, wrong and zero role, of each split; empty where not measured."""
    if "likelihood" not in scores:
        return ""
    found = scores["likelihood"]
    rows = [["nats per token of the references", "n", "right role", "wrong role", "zero role", "wrong - right, 95 %",
             "zero - right, 95 %", "role accuracy", "by chance"]]
    for split, of in [*found["splits"].items(), ("all lines", found)]:
        rows.append([split, str(of["n"]), f"{of['right']:.3f}", number_cell(of, "wrong"), f"{of['zero']:.3f}",
                     difference_cell(of, "wrong - right"), difference_cell(of, "zero - right"),
                     number_cell(of, "role_accuracy", ".1%"), number_cell(of, "chance", ".0%")])
    return render_table(rows)


def number_cell(scores, key, form=".3f"):
    """A number of scores as text, "-" where there is none."""
    return format(scores[key], form) if key in scores else "-"


def difference_cell(found, name):
    """"+d [low, high]" of a difference between two of the likelihoods, such as "zero - right"."""
    if name not in found["interval"]:
        return "-"
    more, less = name.split(" - ")
    low, high = found["interval"][name]
    return f"{found[more] - found[less]:+.3f} [{low:+.3f}, {high:+.3f}]"


def kind_table(scores, before=None):
    """The scores of each kind of knowledge, as text; empty where the data name no kinds."""
    compare = before is not None
    columns = columns_of(scores, compare)
    rows = [["kind of knowledge", *headings_of(columns, compare)]]
    for split, of_split in scores["splits"].items():
        for kind, of_kind in of_split.get("kinds", {}).items():
            old = before["splits"][split]["kinds"][kind] if compare else None
            rows.append([kind, *score_cells(of_kind, old, columns)])
    return render_table(rows) if len(rows) > 1 else ""


def count_loops(splits):
    """How many answers repeat themselves, as a line of text; no line of scores that are older than this measure."""
    of_all = [of_split["overall"] for of_split in splits.values()]
    if not all("loops" in scores for scores in of_all):
        return []
    answers = sum(scores["n"] for scores in of_all)
    loops = round(sum(scores["n"] * scores["loops"] / 100 for scores in of_all))
    return [f"loops: {loops} of {answers} answers repeat words three times in a row"]


def other_measures(scores):
    """The measures beside metrics and likelihood, a line each. KeyError for a likelihood that is none."""
    likelihood_table(scores)
    lines = []
    if swap := scores.get("swap"):
        lines.append(f"role swap: answers as the right role {swap['right']['rougeL']:.1f} ROUGE-L, "
                     f"as the wrong role {swap['wrong']['rougeL']:.1f}")
    if "retrieval_top1" in scores:
        lines.append(f"retrieval: {scores['retrieval_top1']:.1%} of test answers are nearest to their own role")
    if swapped := scores.get("retrieval_swapped"):
        lines.append(f"retrieval of answers read as another role: {swapped['reader']:.1%} are nearest to that role, "
                     f"{swapped['author']:.1%} to their own")
    return lines


# ---------------------------------------------------------------------------------------------------------- answers
def by_question(pairs):
    """[(prediction after, before) of each role] of the questions that most roles were asked, the worst answered
    first: fewest facts right, then lowest ROUGE-L, means over the roles."""
    groups = {}
    for pair in pairs:
        groups.setdefault(pair[0]["question"], []).append(pair)
    most = max(map(len, groups.values()))

    def score(group):
        facts = sum(after.get("fact", 0) for after, _ in group)
        return facts, sum(after["rougeL"] for after, _ in group)
    return sorted((group for group in groups.values() if len(group) == most), key=score)


def print_question(title, group):
    """Prints a question with the answers of the backbone and of every role; x marks those without the fact. What kind
    of knowledge it is for a role is added, where it is not the same for all."""
    question = group[0][0]["question"]
    rows = [(" ", "(the backbone)", group[0][1]["answer"])]
    kinds = {after.get("kind") for after, _ in group}
    for after, _ in group:
        kind = f"  [{after.get('kind')}]" if len(kinds) > 1 else ""
        rows.append(("x" if after.get("fact") == 0 else " ", after["role"], after["answer"] + kind))

    width = max(display_width(name) for _, name, _ in rows)
    print(f"\n{title}: {printable(question)}")
    for mark, name, answer in rows:
        print(f"  {mark} {pad(name, width)}  {printable(answer)}")


def print_examples(after, before):
    """Prints for each language a typical question of each split, the median of `by_question`, and the worst of all,
    unless that is one of them."""
    marks = "; x: the fact is wrong or missing" if any("fact" in prediction for prediction in after) else ""
    print(f"\nQuestions to all roles, of middling and of lowest score{marks}.")

    for language in dict.fromkeys(prediction["language"] for prediction in after):
        pairs = [pair for pair in zip(after, before) if pair[0]["language"] == language]
        shown = []
        for split in dict.fromkeys(prediction["split"] for prediction, _ in pairs):
            ordered = by_question([pair for pair in pairs if pair[0]["split"] == split])
            shown.append(ordered[len(ordered) // 2])
            print_question(f"{split}, the median", shown[-1])

        worst = by_question(pairs)[0]
        if worst not in shown:
            print_question("of all, the worst", worst)
