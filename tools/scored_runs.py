"""Scored runs as tools.compare reads them: run folders, or files of predictions, and the seeds that belong together."""
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from checkpoint import read_run
from eval import read_predictions
from files import read_jsonl, reading
from hycora_layer import METHODS
from tools.likelihoods import file_beside, read_likelihood

TITLES = {"bleu4": "BLEU-4", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "fact": "fact"}


@dataclass
class Run:
    """A scored run: `scores` has a row of METRICS and "fact" (NaN without one) for each of `items`, which are
    (split, role, question, kind) in sorted order."""
    name: str
    identity: str                       # equal for runs that differ only in their seed
    seed: int | None
    items: list
    scores: np.ndarray
    by: str                             # what made it: run, data, seed, decoding
    trainable: int | None = None
    tokens_per_s: float | None = None
    read: tuple | None = None           # (items, values) of `read_likelihood`


def name_of(config):
    """The method as the paper's tables call it, and a note if the prompt is not the method's default."""
    sources = METHODS[config["method"]]
    name = config["method"] + (" w/o HCL" if "hyper" in sources and not config["lambda_max"] else "")
    if config["role_in_prompt"] != (set(sources) == {"shared"}):
        name += " + role in prompt" if config["role_in_prompt"] else " - role in prompt"
    if config["role_in_prompt"] and not config["profiles_in_prompt"]:
        name += ", name only"
    return name


def read_lines(path):
    """(items, scores, what made them) of a predictions.jsonl."""
    lines = sorted(read_predictions(path, trust=True), key=lambda p: (p["split"], p["role"], p["question"]))
    items = [(p["split"], p["role"], p["question"], p.get("kind", "")) for p in lines]
    scores = [[p.get(metric, math.nan) for metric in TITLES] for p in lines]
    return items, np.array(scores), str(lines[0].get("by", path))


def read(path):
    """The Run of a run folder or of a file of predictions, with its likelihoods, if they were measured."""
    path = Path(path)
    run = read_predicted(path)
    likelihoods = file_beside(path if path.suffix == ".jsonl" else path / "predictions.jsonl")
    if likelihoods.is_file():
        run.read = read_likelihood(likelihoods)
    return run


def read_predicted(path):
    """The Run of a run folder or of a file of predictions, without likelihoods."""
    if path.suffix == ".jsonl":
        return Run("backbone" if path.stem == "predictions_backbone" else path.stem, str(path), None, *read_lines(path))
    config = read_run(path)
    if not (path / "predictions.jsonl").is_file():
        raise ValueError(f"{path} has no predictions.jsonl: python eval.py --run {path}")
    with reading(path / "adapter.safetensors", "a run's adapter"):
        with safe_open(path / "adapter.safetensors", framework="np") as file:
            trainable = sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())
    metrics = path / "metrics.jsonl"                       # which a run with a role added later lacks
    with reading(metrics, 'lines of metrics, with "tokens_per_s"'):
        speeds = [float(line["tokens_per_s"]) for _, line in read_jsonl(metrics)] if metrics.is_file() else []
    items, scores, by = read_lines(path / "predictions.jsonl")
    other = ("seed", "made_of", "out", "device", "python", "torch", "gpu", "git_commit")
    same = {k: v for k, v in config.items() if k not in other}
    identity = json.dumps([same, by.rpartition("; ")[2] if "; " in by else ""], sort_keys=True)     # and the decoding
    return Run(name_of(config), identity, config["seed"], items, scores, by, trainable,
               statistics.median(speeds) if speeds else None)


def grouped(paths, names=None):
    """{name: [Run of each seed, in their order]}; names: those of `paths`, in place of the methods'. ValueError unless
    all answered the same items, each run its own seed."""
    runs = [read(path) for path in paths]
    for run, name in zip(runs, names or []):
        run.name = name
    check_items(paths, runs)

    # runs that differ in their seed alone
    groups = {}                                                          # {identity: {seed: (run, path)}}
    for path, run in zip(paths, runs):
        seeds = groups.setdefault(run.identity, {})
        if run.seed in seeds:
            raise ValueError(f"{path} is given twice, or another run has its settings and its seed")
        seeds[run.seed] = run, path

    # their names, with a path where two have the same
    result = {}
    firsts = [next(iter(seeds.values())) for seeds in groups.values()]
    all_names = [run.name for run, _ in firsts]
    for (first, path), seeds in zip(firsts, groups.values()):
        name = first.name if all_names.count(first.name) == 1 else f"{first.name} ({path})"
        result[name] = [seeds[seed][0] for seed in sorted(seeds, key=lambda seed: seed or 0)]

    # the backbone's answers, which training writes beside a run's own
    backbone = Path(paths[0]) / "predictions_backbone.jsonl"
    if backbone.is_file():
        of_backbone = read(backbone)
        if of_backbone.items == runs[0].items:
            result.setdefault(of_backbone.name, [of_backbone])
    return result


def check_items(paths, runs):
    """ValueError unless all runs answered the same test lines."""
    for path, run in zip(paths, runs):
        if run.items != runs[0].items:
            common = len(set(run.items) & set(runs[0].items))
            raise ValueError(f"{path} answers {len(run.items)} test lines and {paths[0]} {len(runs[0].items)}, "
                             f"{common} of them the same: score both on the same lines")
