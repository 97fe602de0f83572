"""Scoring a run: BLEU, ROUGE, likelihood, the role swap, retrieval.

    python eval.py --run runs/demo [--split general|role_specific] [--limit N] [--swap-roles] [--likelihood]
    python eval.py --run runs/demo --backbone [--shots 4]          # the untouched backbone, with examples in the prompt
    python eval.py --predictions answers.jsonl --language zh       # answers from anywhere, no model

A prediction is a line of predictions.jsonl: a test question, its references, the answer and the answer's metrics.
"""
from console import Parser, counted, one_line_errors

import itertools
import sys
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

from checkpoint import load_run, read_run
from data import SPLITS, fetch_data, load_samples, load_test_samples, persona_of, run_persona
from files import (
    check_numbers,
    check_writable,
    claimed,
    lasting_name,
    read_json,
    read_jsonl,
    reading,
    write_json,
    write_jsonl,
)
from generate import Decoding, add_decoding_arguments, decoding_from_args, generate_texts
from likelihood import read_references
from metrics import METRICS, aggregate, mean_scores, score_answer
from report import MEASURES, other_measures, print_examples, table
from selection import is_texts, other_roles, role_id, role_shots, some_of_each, subsample, with_shots


# ---------------------------------------------------------------------------------------------------------- answers
def provenance(config, decoding=None, as_role="own", shots=None):
    """One line that says what made a table, a prediction or a figure: run, method, data, seed and decoding."""
    who = f"{config['method']} in {config['out']}"
    if as_role is None:
        who = f"the untouched {config['model']}"
    if shots:
        who += f" with {counted(max(map(len, shots.values())), 'example')} of the role"
    how = f"; {decoding}" if decoding else ""
    return f"{who}, {config['data']} ({config['language']}), seed {config['seed']}{how}"


def make_prediction(sample, answer, by, **more):
    """A line of predictions.jsonl, with its metrics; by: what made the answer."""
    known = {"facts": list(sample.facts), "kind": sample.kind}
    return {"split": sample.split, "language": sample.language, "role": sample.role, "question": sample.question,
            "references": list(sample.answers), **{key: value for key, value in known.items() if value},
            "answer": answer, **more, "by": by,
            **score_answer(answer, sample.answers, sample.language, sample.facts)}


def predict(model, tokenizer, config, samples, decoding, as_role="own", batch_size=64, shots=None):
    """Predictions for test samples.

    as_role: "own", each sample as its own role; "other", as the next role of the same language; None, as the untouched
    backbone, with the role in the prompt. shots: {role: (question, answer) pairs} to put before the question.
    """
    samples = with_shots(samples, shots or {})
    names = other_roles(samples) if as_role == "other" else [s.role for s in samples]
    if as_role is None:
        role_ids = None
        personas = [persona_of(name, config["profiles"]) for name in names]
    else:
        role_ids = [role_id(name, config["roles"]) for name in names]
        personas = [run_persona(name, config) for name in names]

    prompts = [tokenizer.prompt(s.question, text, s.history) for s, text in zip(samples, personas)]
    progress = {"own": "answering", "other": "answering as another role", None: "backbone answering"}[as_role]
    answers = generate_texts(model, tokenizer, prompts, role_ids, decoding, batch_size, progress)
    if without := sum(answer is None for answer in answers):
        print(f"no room for an answer to {counted(without, 'prompt')} of {len(prompts)}: scored as empty")

    by = provenance(config, decoding, as_role, shots)
    predictions = []
    for s, name, answer in zip(samples, names, answers):
        more = {"as_role": name} if as_role == "other" else {}
        predictions.append(make_prediction(s, answer or "", by, **more))
    return predictions


# --------------------------------------------------------------------------------------------------- scores of a run
def evaluate(model, tokenizer, config, samples, decoding, as_role="own", swap=False, batch_size=64, shots=None):
    """(scores.json, predictions) of a run, or with as_role None of the untouched backbone, with shots as in `predict`.

    swap: the questions answered as another role too.
    """
    predictions = predict(model, tokenizer, config, samples, decoding, as_role, batch_size, shots)
    scores = {"by": provenance(config, decoding, as_role, shots), "splits": aggregate(predictions),
              "run": config["out"], "data": config["data"], "seed": config["seed"], "decoding": vars(decoding)}

    indices = [i for i, other in enumerate(other_roles(samples)) if other is not None]
    if swap and indices:
        swapped = predict(model, tokenizer, config, [samples[i] for i in indices], decoding, "other", batch_size)
        right = mean_scores([predictions[i] for i in indices])
        scores["swap"] = {"right": right, "wrong": mean_scores(swapped)}
    return scores, predictions


def evaluate_before_after(model, tokenizer, run, samples, to_read):
    """Scores a finished run and the untouched backbone on test samples, writes both into the run folder, and prints
    before -> after, the role swap, and typical and worst answers. to_read: samples whose likelihood is measured.
    """
    config = read_run(run)
    decoding = Decoding(config["max_new_tokens"])
    found, lines = read_references(model, tokenizer, config, to_read)
    scores, after = evaluate(model, tokenizer, config, samples, decoding, swap=True)
    scores |= found
    scores_before, before = evaluate(model, tokenizer, config, samples, decoding, as_role=None)
    write_scores(score_paths(run), scores, after, lines)
    write_scores(score_paths(run, "_backbone"), scores_before, before)

    print(f"\n{len(samples)} test questions that training never saw, backbone -> {config['method']}:\n")
    print(table(scores, scores_before))
    print_examples(after, before)


# ----------------------------------------------------------------------------------------------------------- files
def score_paths(run, suffix=""):
    """[scores, predictions, likelihood]: where they are in a run folder."""
    names = (f"scores{suffix}.json", f"predictions{suffix}.jsonl", f"likelihood{suffix}.jsonl")
    return [Path(run) / name for name in names]


def write_scores(paths, scores, predictions=None, lines=None):
    """Writes scores (JSON) and, beside them, the values that they average: predictions, likelihood lines (JSONL).
    Returns the paths written."""
    written = [paths[0]]
    for path, records in zip(paths[1:], (predictions, lines)):
        if records:
            write_jsonl(path, records)
            written.append(path)
    write_json(paths[0], scores)
    return written


def read_predictions(path, language="en", trust=False):
    """The predictions of a JSONL, with their metrics (if `trust`, those that they have already).

    language: of lines that do not say theirs. ValueError names the line that lacks something.
    """
    predictions = []
    for place, record in read_jsonl(path):
        prediction = {"language": language, "question": ""} | record
        check_prediction(prediction, place)
        facts = prediction.get("facts", [])
        wanted = (*METRICS, "fact") if facts else METRICS
        if not trust or any(prediction.get(metric) is None for metric in wanted):
            prediction |= score_answer(prediction["answer"], prediction["references"], prediction["language"], facts)
        with reading(place, "a prediction"):
            check_numbers(prediction, dict.fromkeys(wanted, (float, -1e6, 1e6)))
        predictions.append(prediction)
    if not predictions:
        raise ValueError(f"{path} holds no prediction")
    return predictions


def check_prediction(prediction, place):
    """ValueError names the place if a field of a prediction is not a string, or its language is unknown."""
    for key in ("split", "role", "question", "answer"):
        if not isinstance(prediction.get(key), str):
            raise ValueError(f'{place}: "{key}" is missing or not text')
    if not isinstance(prediction.get("kind", ""), str):
        raise ValueError(f'{place}: "kind" is not text')
    if prediction["language"] not in ("en", "zh", "other"):
        raise ValueError(f'{place}: "language" has to be en, zh or other')
    references = prediction.get("references")
    if not references or not is_texts(references):
        raise ValueError(f'{place}: "references" has to be a list of at least one text')
    if not is_texts(prediction.get("facts", [])):
        raise ValueError(f'{place}: "facts" has to be a list of texts')


def place_in_run(run, suffix, made_by, roles):
    """({measures to keep}, `score_paths`) for new scores in a run folder; made_by: their data and decoding.

    Old scores made in the same way are replaced; measures that only the old ones have are kept, unless the old ones
    name a role that `roles` lacks (it was renamed). Scores made in another way stay: new ones get files beside them.
    """
    for n in itertools.count(1):
        paths = score_paths(run, suffix + (f"-{n}" if n > 1 else ""))
        if not paths[0].is_file():
            return {}, paths

        old = read_json(paths[0], "the scores of a run")
        if any(old.get(key) != value for key, value in made_by.items()):
            continue

        kept = {key: old[key] for key in MEASURES if key in old}
        with reading(paths[0], "the scores of a run"):
            other_measures(kept)                         # fails here, before new answers are written
            scored = {role for split in old["splits"].values() for role in split["roles"]}
        return (kept if scored <= set(roles) else {}), paths


# ---------------------------------------------------------------------------------------------------------- command
def check_arguments(args):
    """ValueError for arguments that do not go together."""
    if bool(args.run) == bool(args.predictions):
        raise ValueError("either --run or --predictions says what to score")

    # answers that are there already take no arguments of a run
    if args.predictions:
        about_runs = ["data", "split", "limit", "compile", "swap_roles", "likelihood", "likelihood_limit", "backbone",
                      "shots"]
        given = [name for name in about_runs if getattr(args, name)]
        given += [field.name for field in fields(Decoding) if hasattr(args, field.name)]
        given += ["decode"] if args.decode != "greedy" else []
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} is about a run: --predictions has answers already")

    # what is read, and by whom
    if args.backbone and args.swap_roles:
        raise ValueError("--swap-roles is about a run's roles: the untouched --backbone has none")
    if args.shots and not args.backbone:
        raise ValueError("--shots puts examples into the prompt of the untouched --backbone: runs were not trained so")
    if args.likelihood_limit and not args.likelihood:
        raise ValueError("--likelihood-limit says how many lines --likelihood reads: give both")

    # numbers and paths
    if args.batch_size < 1 or min(args.limit, args.likelihood_limit, args.shots) < 0:
        raise ValueError("--batch-size has to be positive, and --limit, --likelihood-limit and --shots 0 or more")
    if args.out and Path(args.out).suffix == ".jsonl":
        raise ValueError(f"--out takes the scores, FILE.json; the answers go beside it, into {args.out}")
    if args.out == "":
        raise ValueError("--out is empty")


def test_samples(config, splits):
    """The test samples of a run's roles; ValueError if there is none. Lines of other roles are counted and left out."""
    tests = load_test_samples(config["data"], config["language"], splits, generalization=config["generalization"])
    samples = [s for s in tests if s.role in config["roles"]]
    if not samples:
        raise ValueError("no test line is about a role of this run")
    unknown = [s.role for s in tests if s.role not in config["roles"]]
    if unknown:
        names = sorted(set(unknown))
        more = ", ..." if len(names) > 3 else ""
        print(f"left out: {counted(len(unknown), 'test line')} of roles that are not in this run "
              f"({', '.join(names[:3])}{more})")
    return samples


def training_samples(config):
    """The samples that a run was trained on (config: its config.json)."""
    samples = load_samples(fetch_data(config["data"]), config["language"], "train", config["splits"],
                           config["generalization"])
    samples = [sample for sample in samples if sample.role in config["roles"]]
    if config["samples_per_role"]:
        samples = some_of_each(samples, config["samples_per_role"], config["seed"])
    return samples


def where_to_write(args, config, decoding):
    """({measures to keep}, [paths]) of the scores of a run; no path for a part of the test: it is only printed."""
    if args.out:
        out = Path(args.out)
        paths = [out, out.with_suffix(".jsonl")]
        if args.likelihood:
            paths.append(out.with_suffix(".likelihood.jsonl"))
        return {}, paths
    if args.limit or args.split:
        return {}, []

    suffix = "_backbone" if args.backbone else ""
    if args.shots:
        suffix += f"_{args.shots}-shots"
    check_writable(args.run)
    made_by = {"data": config["data"], "decoding": vars(decoding)}
    return place_in_run(Path(args.run), suffix, made_by, config["roles"])


def score_run(args):
    """Scores a run, or its untouched backbone, and writes the results; returns (scores, the paths written)."""
    config = read_run(args.run)
    trained_on = dict(config)
    config["data"] = lasting_name(args.data or config["data"])
    decoding = decoding_from_args(args, config["language"], config["max_new_tokens"])
    kept, paths = where_to_write(args, config, decoding)                 # fails here, before any work is done

    with claimed(*paths) if args.out else nullcontext():
        splits = trained_on["splits"] if config["data"] == trained_on["data"] else SPLITS
        tests = test_samples(config, [args.split] if args.split else splits)
        shots = role_shots(training_samples(trained_on), args.shots) if args.shots else None
        model, tokenizer, _ = load_run(args.run, args.device, args.compile)
        found, lines = {}, None
        if args.likelihood:
            to_read = subsample(tests, args.likelihood_limit or args.limit)
            found, lines = read_references(model, tokenizer, config, to_read, args.backbone, shots)
        samples = subsample(tests, args.limit)
        as_role = None if args.backbone else "own"
        scores, predictions = evaluate(model, tokenizer, config, samples, decoding, as_role, args.swap_roles,
                                       args.batch_size, shots)
        scores = kept | scores | found
        written = write_scores(paths, scores, predictions, lines) if paths else []
    return scores, written


def score_predictions(args):
    """Scores a file of answers; returns (scores, the paths written)."""
    paths = [Path(args.out)] if args.out else []
    with claimed(*paths):
        predictions = read_predictions(args.predictions, args.language)
        scores = {"by": predictions[0].get("by", args.predictions), "splits": aggregate(predictions)}
        if paths:
            write_scores(paths, scores)
    return scores, paths


def score(args):
    """Scores a run or a file of answers; a run's scores.json and predictions.jsonl go into its folder."""
    check_arguments(args)
    scores, paths = score_run(args) if args.run else score_predictions(args)
    print(f"{scores['by']}\n{table(scores)}")
    if paths:
        print(f"wrote {' and '.join(map(str, paths))}")
    else:
        print("nothing written: --out FILE.json keeps it")


def parse_args(argv):
    """The command line."""
    parser = Parser(description="Score a run.")
    parser.add_argument("--run", help="a run folder of train.py")
    parser.add_argument("--backbone", action="store_true", help="score the untouched backbone")
    parser.add_argument("--shots", type=int, default=0, help="lines of the role in the prompt of --backbone")
    parser.add_argument("--predictions", help="score this JSONL instead of a run")
    parser.add_argument("--language", choices=("en", "zh", "other"), default="en", help="of --predictions")

    # which test lines, and how they are answered
    parser.add_argument("--data", help="another data folder than the run's")
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--limit", type=int, default=0, help="test lines per split; 0: all")
    add_decoding_arguments(parser)

    # what is measured beside the answers
    parser.add_argument("--swap-roles", action="store_true", help="also answer as the wrong role, and score that")
    parser.add_argument("--likelihood", action="store_true", help="also read the references: likelihood, retrieval")
    parser.add_argument("--likelihood-limit", type=int, default=0, help="test lines per split for that; 0: as --limit")

    # where it runs, and where the scores go
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="slow to start, then faster; CUDA graphs on a GPU")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", help="JSON file; default: scores.json in the run folder")
    return parser.parse_args(argv)


@one_line_errors("eval.py")
def main():
    """The command."""
    score(parse_args(sys.argv[1:]))


if __name__ == "__main__":
    main()
