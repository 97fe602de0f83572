"""Scoring a run: BLEU, ROUGE, likelihood, the role swap, retrieval.

    python eval.py --run runs/demo [--split general|role_specific] [--limit N] [--swap-roles] [--likelihood]
    python eval.py --run runs/demo --backbone                      # the untouched backbone
    python eval.py --predictions answers.jsonl --language zh       # answers from anywhere, no model

A prediction is a line of predictions.jsonl: a test question, its references, the answer and the answer's metrics.
"""
from console import Parser, counted, one_line_errors

import math
import sys
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from batches import collate
from checkpoint import load_run, read_run
from data import SPLITS, encode_examples, load_test_samples, other_roles, persona, persona_of, role_id, subsample
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
from generate import Decoding, add_decoding_arguments, decoding_from_args, generate_texts, rows_that_fit
from losses import pool_response, response_cross_entropy
from metrics import METRICS, aggregate, bootstrap, mean_scores, score_answer
from report import other_measures, print_examples, table


# ---------------------------------------------------------------------------------------------------------- answers
def provenance(config, decoding=None, as_role="own"):
    """What made a table, a prediction or a figure, in a line: run, method, data, seed and decoding."""
    who = f"{config['method']} in {config['out']}"
    if as_role is None:
        who = f"the untouched {config['model']}"
    how = f"; {decoding}" if decoding else ""
    return f"{who}, {config['data']} ({config['language']}), seed {config['seed']}{how}"


def make_prediction(sample, answer, by, **more):
    """A line of predictions.jsonl, with its metrics; by: what made the answer."""
    known = {"facts": list(sample.facts), "kind": sample.kind}
    return {"split": sample.split, "language": sample.language, "role": sample.role, "question": sample.question,
            "references": list(sample.answers), **{key: value for key, value in known.items() if value},
            "answer": answer, **more, "by": by,
            **score_answer(answer, sample.answers, sample.language, sample.facts)}


def predict(model, tokenizer, config, samples, decoding, as_role="own", batch_size=64):
    """Predictions for test samples.

    as_role: "own", each sample as its own role; "other", as the next role of the same language; None, as the untouched
    backbone, with the role in the prompt.
    """
    names = other_roles(samples) if as_role == "other" else [s.role for s in samples]
    if as_role is None:
        role_ids = None
        personas = [persona_of(name, config["profiles"]) for name in names]
    else:
        role_ids = [role_id(name, config["roles"]) for name in names]
        personas = [persona(name, config) for name in names]

    prompts = [tokenizer.prompt(s.question, text, s.history) for s, text in zip(samples, personas)]
    progress = {"own": "answering", "other": "answering as another role", None: "backbone answering"}[as_role]
    answers = generate_texts(model, tokenizer, prompts, role_ids, decoding, batch_size, progress)

    by = provenance(config, decoding, as_role)
    predictions = []
    for s, name, answer in zip(samples, names, answers):
        more = {"as_role": name} if as_role == "other" else {}
        predictions.append(make_prediction(s, answer, by, **more))
    return predictions


# -------------------------------------------------------------------------------------------- likelihood, retrieval
@torch.inference_mode()
def reference_nll(model, tokenizer, config, samples, batch_size=32):
    """Negative log-likelihood of each sample's first reference, as the sample's role.

    Returns nats per token (n,) of the reference and its stop token, and e_t of Eq. 5 (n, C). NaN where the prompt alone
    is longer than max_length.
    """
    backbone = model.backbone
    profiles = config["profiles"] if config["role_in_prompt"] else None
    first_answers = [replace(s, answers=s.answers[:1]) for s in samples]
    examples, _, _ = encode_examples(first_answers, config["roles"], tokenizer, config["max_length"], profiles)
    examples.sort(key=lambda example: len(example.ids))                  # similar lengths, little padding
    longest = max((len(example.ids) for example in examples), default=0)
    batch_size = rows_that_fit(backbone, longest, 0, batch_size)

    nll = torch.full((len(samples),), math.nan)
    e_t = torch.full((len(samples), backbone.config.hidden_size), math.nan)
    for start in range(0, len(examples), batch_size):
        chosen = examples[start:start + batch_size]
        batch = collate(chosen, tokenizer.eos_id, config["pool"]).to(backbone.device)

        # the cross-entropy of each example alone: positions and targets come example after example
        with model.active_roles(batch.role_ids):
            hidden = backbone.hidden_states(batch.input_ids).flatten(0, 1)                    # (B * T, C)
            counts = [len(example.ids) - example.prompt_len for example in chosen]
            parts = zip(hidden[batch.positions].split(counts), batch.targets.split(counts))
            sums = [response_cross_entropy(h, backbone.lm_head.weight, targets) for h, targets in parts]

        indices = [example.sample for example in chosen]
        nll[indices] = torch.stack(sums).float().cpu() / torch.tensor(counts)
        e_t[indices] = pool_response(hidden, batch.pooled, batch.pooled_rows, len(chosen)).float().cpu()
    return nll, e_t


def likelihood(model, tokenizer, config, samples, nll, wrong=3):
    """How much less likely the references are as the next `wrong` roles of the same language than as their own role.

    nll: (n,) of `reference_nll`. Returns means in nats per token with the interval of their difference,
    `role_accuracy`, how often the right role beats all the others, and `chance`, how often it would by luck. None
    without a second role.
    """
    # the same references as other roles
    as_others = torch.full((wrong, len(samples)), math.nan)
    for distance in range(1, wrong + 1):
        others = other_roles(samples, distance)
        indices = [i for i, other in enumerate(others) if other is not None]
        if indices:
            swapped = [replace(samples[i], role=others[i]) for i in indices]
            as_others[distance - 1, indices], _ = reference_nll(model, tokenizer, config, swapped)

    # of the samples that have both
    known = ~as_others.isnan().all(0) & ~nll.isnan()
    if not known.any():
        return None
    right = nll[known]
    as_others = as_others[:, known]
    mean_wrong = as_others.nanmean(0)
    best_wrong = as_others.nan_to_num(math.inf).min(0).values
    num_others = (~as_others.isnan()).sum(0)
    return {
        "right": right.mean().item(),
        "wrong": mean_wrong.mean().item(),
        "difference_interval": list(bootstrap(mean_wrong - right)),
        "role_accuracy": (right < best_wrong).float().mean().item(),
        "chance": (1 / (1 + num_others)).mean().item(),
    }


@torch.inference_mode()
def retrieval_top1(model, config, samples, e_t):
    """Share of test answers whose z_t is nearest to their own role's z_r."""
    weight = model.hyper.role_embedding.weight
    z_r, z_t = model.projections(weight, e_t.to(weight))                               # (R, d_z), (n, d_z)
    nearest = (F.normalize(z_t, dim=-1) @ F.normalize(z_r, dim=-1).t()).argmax(-1).tolist()
    return sum(config["roles"][s.role] == found for s, found in zip(samples, nearest)) / len(samples)


# --------------------------------------------------------------------------------------------------- scores of a run
def evaluate(model, tokenizer, config, samples, decoding, as_role="own", swap=False, read=False, batch_size=64):
    """(scores.json, predictions) of a run, or with as_role None of the untouched backbone.

    swap: the questions answered as another role too. read: likelihood, and retrieval where there are projections.
    """
    predictions = predict(model, tokenizer, config, samples, decoding, as_role, batch_size)
    scores = {"by": provenance(config, decoding, as_role), "splits": aggregate(predictions), "run": config["out"],
              "data": config["data"], "seed": config["seed"], "decoding": vars(decoding)}

    indices = [i for i, other in enumerate(other_roles(samples)) if other is not None]
    if swap and indices:
        swapped = predict(model, tokenizer, config, [samples[i] for i in indices], decoding, "other", batch_size)
        right = mean_scores([predictions[i] for i in indices])
        scores["swap"] = {"right": right, "wrong": mean_scores(swapped)}

    if read and as_role:
        nll, e_t = reference_nll(model, tokenizer, config, samples)
        found = likelihood(model, tokenizer, config, samples, nll)
        if found:
            scores["likelihood"] = found
        if model.projections is not None:
            scores["retrieval_top1"] = retrieval_top1(model, config, samples, e_t)
    return scores, predictions


def evaluate_before_after(model, tokenizer, run, samples):
    """Scores a finished run and the untouched backbone on test samples, writes both into the run folder, and prints
    before -> after, the role swap, and typical and worst answers."""
    config = read_run(run)
    decoding = Decoding(config["max_new_tokens"])
    scores, after = evaluate(model, tokenizer, config, samples, decoding, swap=True, read=True)
    scores_before, before = evaluate(model, tokenizer, config, samples, decoding, as_role=None)
    write_scores(run / "scores.json", scores, run / "predictions.jsonl", after)
    write_scores(run / "scores_backbone.json", scores_before, run / "predictions_backbone.jsonl", before)

    print(f"\n{len(samples)} test questions that training never saw, backbone -> {config['method']}:\n")
    print(table(scores, scores_before))
    print("\nQuestions to all roles, of middling and of lowest score; x: the fact is wrong or missing.")
    print_examples(after, before)


# ----------------------------------------------------------------------------------------------------------- files
def write_scores(path, scores, predictions_path=None, predictions=()):
    """Writes scores (JSON) and, beside them, the predictions they are the means of (JSONL)."""
    if predictions_path:
        write_jsonl(predictions_path, predictions)
    write_json(path, scores)


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
        if not (trust and set(wanted) <= prediction.keys()):
            prediction |= score_answer(prediction["answer"], prediction["references"], prediction["language"], facts)
        with reading(place, "a prediction"):
            check_numbers(prediction, dict.fromkeys(wanted, (float, -1e6, 1e6)))
        predictions.append(prediction)
    if not predictions:
        raise ValueError(f"{path} holds no prediction")
    return predictions


def check_prediction(prediction, place):
    """ValueError names the place unless a prediction's texts are texts, in a language that the metrics know."""
    for key in ("split", "role", "question", "answer"):
        if not isinstance(prediction.get(key), str):
            raise ValueError(f'{place}: "{key}" is missing or not text')
    if prediction["language"] not in ("en", "zh", "other"):
        raise ValueError(f'{place}: "language" has to be en, zh or other')
    references = prediction.get("references")
    if not isinstance(references, list) or not references or not all(isinstance(t, str) for t in references):
        raise ValueError(f'{place}: "references" has to be a list of at least one text')
    facts = prediction.get("facts", [])
    if not isinstance(facts, list) or not all(isinstance(fact, str) for fact in facts):
        raise ValueError(f'{place}: "facts" has to be a list of texts')


def place_in_run(run, suffix, scores):
    """(scores, path, path of the predictions) in a run folder: over scores made in the same way, keeping what those
    have measured beyond them, but beside those of other data or decoding."""
    n = 1
    while True:
        number = f"-{n}" if n > 1 else ""
        path = run / f"scores{suffix}{number}.json"
        if not path.is_file():
            break
        old = read_json(path, "the scores of a run")
        if old.get("data") == scores["data"] and old.get("decoding") == scores["decoding"]:
            kept = {key: old[key] for key in ("swap", "likelihood", "retrieval_top1") if key in old}
            with reading(path, "the scores of a run"):
                other_measures(kept)                     # better known before there are new answers
            scores = kept | scores
            break
        n += 1
    return scores, path, run / f"predictions{suffix}{number}.jsonl"


# ---------------------------------------------------------------------------------------------------------- command
ABOUT_RUNS = ("swap_roles", "likelihood", "backbone")


def check_arguments(args):
    """ValueError for arguments that do not go together."""
    if bool(args.run) == bool(args.predictions):
        raise ValueError("either --run or --predictions says what to score")
    if args.backbone and (args.swap_roles or args.likelihood):
        raise ValueError("--swap-roles and --likelihood are about a run's roles: the untouched --backbone has none")
    if args.batch_size < 1 or args.limit < 0:
        raise ValueError("--batch-size has to be positive, and --limit 0 or more")
    if args.out and Path(args.out).suffix == ".jsonl":
        raise ValueError(f"--out takes the scores, FILE.json; the answers go beside it, into {args.out}")
    if args.out == "":
        raise ValueError("--out is empty")
    if args.predictions:
        given = [name for name in ("data", "split", "limit", "compile", *ABOUT_RUNS) if getattr(args, name)]
        given += [field.name for field in fields(Decoding) if hasattr(args, field.name)]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} is about a run: --predictions has answers already")


def test_samples(args, config):
    """The test samples of a run's roles; ValueError if there is none. Lines about other roles are counted, left out."""
    tests = load_test_samples(config["data"], config["language"], args.split, generalization=config["generalization"])
    samples = subsample([s for s in tests if s.role in config["roles"]], args.limit)
    if not samples:
        raise ValueError("no test line is about a role of this run")
    unknown = [s.role for s in tests if s.role not in config["roles"]]
    if unknown:
        names = sorted(set(unknown))
        more = ", ..." if len(names) > 3 else ""
        print(f"left out: {counted(len(unknown), 'test line')} of roles that are not in this run "
              f"({', '.join(names[:3])}{more})")
    return samples


def score_run(args):
    """Scores a run, or its untouched backbone, and writes what comes out; returns (scores, the paths written)."""
    # where it goes, before there is anything to lose
    config = read_run(args.run)
    config["out"] = str(Path(args.run))
    config["data"] = lasting_name(args.data or config["data"])
    decoding = decoding_from_args(args, config["language"], config["max_new_tokens"])
    kept = {}
    paths = []
    if args.out:
        paths = [Path(args.out), Path(args.out).with_suffix(".jsonl")]
    elif not args.limit and not args.split:
        suffix = "_backbone" if args.backbone else ""
        kept, *paths = place_in_run(Path(args.run), suffix, {"data": config["data"], "decoding": vars(decoding)})
        check_writable(args.run)

    with claimed(*paths) if args.out else nullcontext():
        samples = test_samples(args, config)
        model, tokenizer, _ = load_run(args.run, args.device, args.compile)
        as_role = None if args.backbone else "own"
        scores, predictions = evaluate(model, tokenizer, config, samples, decoding, as_role, args.swap_roles,
                                       args.likelihood, args.batch_size)
        scores = kept | scores
        if paths:
            write_scores(paths[0], scores, paths[1], predictions)
    return scores, paths


def score_predictions(args):
    """Scores a file of answers; returns (scores, the paths written)."""
    paths = [Path(args.out)] if args.out else []
    with claimed(*paths):
        predictions = read_predictions(args.predictions, args.language)
        scores = {"by": predictions[0].get("by", args.predictions), "splits": aggregate(predictions)}
        if paths:
            write_scores(paths[0], scores)
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
    if argv[:1] in (["score"], ["chat"]):
        raise ValueError(f"`eval.py {argv[0]}` is now `python {'eval' if argv[0] == 'score' else 'chat'}.py --run RUN`")
    parser = Parser(description="Score a run.")
    parser.add_argument("--run", help="a run folder of train.py")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="slow to start, then faster; CUDA graphs on a GPU")
    add_decoding_arguments(parser)
    parser.add_argument("--data", help="another data folder than the run's")
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--limit", type=int, default=0, help="test lines per split; 0: all")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--swap-roles", action="store_true", help="also answer as the wrong role, and score that")
    parser.add_argument("--likelihood", action="store_true", help="also read the references: likelihood, retrieval")
    parser.add_argument("--backbone", action="store_true", help="score the untouched backbone")
    parser.add_argument("--predictions", help="score this JSONL instead of a run")
    parser.add_argument("--language", choices=("en", "zh", "other"), default="en", help="of --predictions")
    parser.add_argument("--out", help="JSON file; default: scores.json in the run folder")
    return parser.parse_args(argv)


@one_line_errors("eval.py")
def main():
    """The command."""
    score(parse_args(sys.argv[1:]))


if __name__ == "__main__":
    main()
