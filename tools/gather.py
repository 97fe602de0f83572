"""The runs of a study put together, for tools.reproduce: scores compared, how distinct the roles are, what it cost."""
import functools
import itertools
import statistics
from importlib.util import find_spec

import numpy as np

from checkpoint import read_run
from data import fetch_data, load_rolebench
from eval import make_prediction, read_predictions
from files import read_json, read_jsonl
from metrics import aggregate, repeats_itself
from tools.compare import compare, difference, over_seeds, pair_up
from tools.scarcity import role_means, training_lines
from tools.scored_runs import TITLES
from tools.voice import every_training_line, voices


def minutes(run):
    """How long a run trained, at its usual speed: whatever interrupted it does not count."""
    lines = [line for _, line in read_jsonl(run / "metrics.jsonl")]
    return sum(line["tokens"] for line in lines) / statistics.median(line["tokens_per_s"] for line in lines) / 60


def contrast_by_epoch(runs):
    """{"1": {"loss", "floor", "weighted"}, ...}: for each epoch of runs with a contrastive loss the means of Eq. 7, of
    the least that it could be in those batches, and of what Eq. 6 adds above that, lambda (loss - floor), as
    `over_seeds`. Runs whose metrics.jsonl has no floor are left out."""
    epochs = {}
    for run in runs:
        lines = [line for _, line in read_jsonl(run / "metrics.jsonl")]
        with_loss = [line for line in lines if line["contrastive"] is not None and "floor" in line]
        for epoch, of_epoch in itertools.groupby(with_loss, lambda line: str(int(line["epoch"]) + 1)):
            rows = [(line["contrastive"], line["floor"], line["lambda"] * (line["contrastive"] - line["floor"]))
                    for line in of_epoch]
            epochs.setdefault(epoch, []).append(np.mean(rows, 0).tolist())
    return {epoch: dict(zip(("loss", "floor", "weighted"), map(over_seeds, zip(*means))))
            for epoch, means in epochs.items()}


def rolegpt(config):
    """RoleGPT's rows, a prompted GPT: over all test lines of a run's roles that the data folder has its answers to, if
    any, also such as the run did not answer."""
    try:
        load = functools.partial(load_rolebench, fetch_data(config["data"]), config["language"],
                                 splits=config["splits"], generalization=config["generalization"])
        answers = load("rolegpt_baseline")
    except FileNotFoundError:
        return []
    tests = {(s.split, s.role, s.question): s for s in load("test") if s.role in config["roles"]}
    keys = [(s.split, s.role, s.question) for s in answers]
    lines = [make_prediction(tests[key], s.answers[0], "RoleGPT") for key, s in zip(keys, answers) if key in tests]

    rows = []
    for split, of_split in aggregate(lines).items():
        scores = of_split["overall"]
        means = dict.fromkeys(TITLES)
        for metric in TITLES.keys() & scores.keys():
            means[metric] = over_seeds([scores[metric]])
        rows.append({"method": f"RoleGPT ({scores['n']} lines)", "split": split, "role": "all", "kind": "all",
                     "n": scores["n"], "seeds": 1, **means, "trainable": None, "tokens_per_s": None})
    return rows


def short_commit(run):
    """The commit that made a run, in twelve digits; "-dirty" if the files differed from it."""
    commit, _, dirty = str(read_run(run)["git_commit"]).partition("-")
    return commit[:12] + ("-dirty" if dirty else "")


def about_runs(runs):
    """How distinct the roles of a variant's runs are, and what the runs cost."""
    scores = [read_json(run / "scores.json", "the scores of a run") for run in runs]
    swaps = [s["swap"]["wrong"]["rougeL"] for s in scores if "swap" in s]
    accuracies = [s["likelihood"]["role_accuracy"] for s in scores if "role_accuracy" in s.get("likelihood", {})]
    retrievals = [s["retrieval_top1"] for s in scores if "retrieval_top1" in s]
    by_reader = [s["retrieval_swapped"]["reader"] for s in scores if "retrieval_swapped" in s]
    loops = []
    for run in runs:
        answers = read_predictions(run / "predictions.jsonl", trust=True)
        loops.append(100 * statistics.mean(repeats_itself(p["answer"], p["language"]) for p in answers))
    return {"as the wrong role": over_seeds(swaps),
            "role accuracy": over_seeds([100 * share for share in accuracies]),
            "retrieval": over_seeds([100 * share for share in retrievals]),
            "retrieval, read as another": over_seeds([100 * share for share in by_reader]),
            "loops": over_seeds(loops),
            "contrast": contrast_by_epoch(runs),
            "minutes": over_seeds([minutes(run) for run in runs]),
            "commits": sorted({short_commit(run) for run in runs})}


def by_role(folders):
    """{"lines": {role: training lines}, "nats": {variant: {role: nats per token as the right role}}}, means over the
    seeds of the first variant; a variant that lacks one of them is left out. None unless all runs have likelihoods."""
    runs = [run for of in folders.values() for run in of]
    if not all((run / "likelihood.jsonl").is_file() for run in runs):
        return None
    seeds = {run.name for run in next(iter(folders.values()))}
    nats = {}
    for name, of in folders.items():
        means = [role_means(run)[0] for run in of if run.name in seeds]
        if len(means) == len(seeds):
            nats[name] = {role: statistics.mean(each[role] for each in means) for role in means[0]}
    return {"lines": training_lines(runs[0]), "nats": nats}


def named_from(folders, answers):
    """How often a classifier names the role (tools.voice) from the variants' answers, from files of answers, and from
    what puts that into perspective. Rows {"split", "language", "n", "text", "accuracy": `over_seeds`}, "text" a
    variant, the stem of a file, or as in `voices`. All answers but the first variant's also have "minus", its name, and
    "difference" and "interval" in points: lines and seeds drawn anew, together. None without scikit-learn."""
    if not find_spec("sklearn"):
        return None
    runs = {run: name for name, of in folders.items() for run in of}
    files = {path: path.stem for path in answers}
    predictions = {run: read_predictions(run / "predictions.jsonl", trust=True) for run in runs}
    predictions |= {path: read_predictions(path, trust=True) for path in files}

    # for each part of the test lines, {text: {seed: row of `voices`}}; the seed of what has none is None
    found = {}
    for row in voices(every_training_line(next(iter(runs))), predictions):
        source = row["text"]
        seed = source.name if source in runs else None
        texts = found.setdefault((row["split"], row["language"], row["n"]), {})
        texts.setdefault((runs | files).get(source, source), {})[seed] = row

    rows = []
    first = next(iter(folders))
    for (split, language, n), texts in found.items():
        of_first = np.array([row["right"] for row in texts[first].values()])             # (seeds, lines)
        for text, of_seeds in texts.items():
            accuracies = [row["accuracy"] for row in of_seeds.values()]
            row = {"split": split, "language": language, "n": n, "text": text, "accuracy": over_seeds(accuracies)}
            if text != first and text in (*folders, *files.values()):
                mine, theirs, paired = pair_up(list(of_seeds), list(texts[first]))
                right = np.array([each["right"] for each in of_seeds.values()])          # (seeds, lines)
                row |= {"minus": first, **difference(right[mine], of_first[theirs], paired)}
            rows.append(row)
    return rows


def gather(folders, answers=()):
    """The result of `compare` for {variant: its runs} and files of answers, with `about_runs` of each variant. Given
    answers of the backbone, those that training wrote are left out."""
    paths = []
    names = []
    for name, runs in folders.items():
        paths += runs
        names += [name] * len(runs)
    result = compare([*paths, *answers], names=[*names, *(path.stem for path in answers)])

    rows = result["rows"] + rolegpt(read_run(paths[0]))
    differences = result["differences"]
    if answers:
        rows = [row for row in rows if row["method"] != "backbone"]
        differences = [d for d in differences if d["method"] != "backbone"]
    found = {"rows": rows, "differences": differences, "runs": {name: about_runs(of) for name, of in folders.items()}}
    if "likelihood" in result:
        found = {"likelihood": result["likelihood"], **found}
    if roles := by_role(folders):
        found["by role"] = roles
    if named := named_from(folders, answers):
        found["named from"] = named
    return found
