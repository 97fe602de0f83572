"""Scoring a run and talking to it.

    python eval.py score --run runs/demo [--split general|role_specific] [--limit N] [--swap-roles] [--likelihood]
    python eval.py score --run runs/demo --backbone                      # the untouched backbone
    python eval.py score --predictions answers.jsonl --language zh       # anybody's answers, no model
    python eval.py score --endpoint URL --endpoint-model NAME --data DIR --language zh --out answers.json
    python eval.py chat  --run runs/demo --role "NAME"
"""
import argparse
import json
import math
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from checkpoint import load_run, read_run
from console import pad, printable
from data import (
    SPLITS,
    Sample,
    collate,
    encode_examples,
    fetch_data,
    load_profiles,
    load_rolebench,
    persona_of,
    role_id,
)
from files import parse_json, read_jsonl, write_json, write_jsonl, write_text
from generate import Decoding, decoding_from_args, generate, generate_texts
from losses import pool_response, response_cross_entropy
from metrics import METRICS, aggregate, bootstrap, mean_scores, score_answer


# ---------------------------------------------------------------------------------------------------------- scoring
def some(samples, limit):
    """At most `limit` samples of each split, evenly spread over the file and thereby over the roles; 0: all."""
    chosen = []
    for split in dict.fromkeys(s.split for s in samples):
        of = [s for s in samples if s.split == split]
        n = min(limit or len(of), len(of))
        chosen += [of[i * len(of) // n] for i in range(n)]
    return chosen


def persona(role, config, untouched=False):
    """What a prompt says of its role: nothing, unless the run tells roles in words or the backbone is untouched."""
    return persona_of(role, config["profiles"]) if config["role_in_prompt"] or untouched else None


def line_of(sample, text, by, **more):
    """A line of predictions.jsonl, with its metrics; `by` says what made it."""
    return {"split": sample.split, "language": sample.language, "role": sample.role, "question": sample.question,
            "references": list(sample.answers), "answer": text, **more, "by": by,
            **score_answer(text, sample.answers, sample.language)}


def predict(model, tokenizer, config, samples, decoding, voices="right", batch_size=64):
    """Answers to test samples, as lines of predictions.jsonl.

    voices: "right", each as its own role; "wrong", as the next role of the same language; None, the untouched backbone,
    which is told the role in words.
    """
    roles = cast(samples)
    speakers = [other_role(s, roles) if voices == "wrong" else s.role for s in samples]
    prompts = [tokenizer.prompt(s.question, persona(name, config, voices is None))
               for s, name in zip(samples, speakers)]
    ids = None if voices is None else [role_id(name, config["roles"]) for name in speakers]
    desc = {"right": "answering", "wrong": "answering as another role", None: "backbone answering"}[voices]
    texts = generate_texts(model, tokenizer, prompts, ids, decoding, batch_size, desc)
    by = made_by(config, decoding, voices)
    return [line_of(s, text, by, **({"spoken_by": speaker} if voices == "wrong" else {}))
            for s, speaker, text in zip(samples, speakers, texts)]


def cast(samples):
    """{language: its roles, in the order in which they occur}: who can stand in for whom."""
    roles = {}
    for s in samples:
        roles.setdefault(s.language, {})[s.role] = None
    return {language: list(names) for language, names in roles.items()}


def other_role(sample, roles, distance=1):
    """The role so many places after the sample's in `cast`; None where that would be the sample's own again."""
    names = roles[sample.language]
    return names[(names.index(sample.role) + distance) % len(names)] if distance < len(names) else None


def made_by(config, decoding=None, voices="right"):
    """What a table, a prediction or a figure was made by, in a line: run, method, data, seed and decoding."""
    who = f"the untouched {config['model']}" if voices is None else f"{config['method']} in {config['out']}"
    how = f"; {decoding}" if decoding else ""
    return f"{who}, {config['data']} ({config['language']}), seed {config['seed']}{how}"


@torch.inference_mode()
def read_answers(model, tokenizer, config, samples, batch_size=32):
    """How the model reads each sample's first reference as spoken by its role: nats per token (n,) of the answer and
    its stop, and e_t of Eq. 5 (n, C). NaN where the prompt alone is longer than max_length."""
    backbone, told = model.backbone, config["profiles"] if config["role_in_prompt"] else None
    rows, _, _ = encode_examples([replace(s, answers=s.answers[:1]) for s in samples], config["roles"], tokenizer,
                             config["max_length"], told)
    rows.sort(key=lambda r: len(r.ids))
    nats, e_t = torch.full((len(samples),), math.nan), torch.full((len(samples), backbone.config.hidden_size), math.nan)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start:start + batch_size]
        batch = collate(chosen, tokenizer.eos_id, config["pool"]).to(backbone.device)
        with model.active_roles(batch.role_ids):
            hidden = backbone.hidden_states(batch.input_ids).flatten(0, 1)                    # (B * T, C)
            counts = [len(r.ids) - r.prompt_len for r in chosen]
            sums = [response_cross_entropy(h, backbone.lm_head.weight, t) for h, t in
                    zip(hidden[batch.positions].split(counts), batch.targets.split(counts))]
        at = [r.sample for r in chosen]
        nats[at] = torch.stack(sums).float().cpu() / torch.tensor(counts)
        e_t[at] = pool_response(hidden, batch.pooled, batch.pooled_rows, len(chosen)).float().cpu()
    return nats, e_t


def likelihood(model, tokenizer, config, samples, nats, wrong=3):
    """How much less likely the right answers are from the mouths of the next `wrong` roles of the same language, in
    nats per token; `told_apart`: how often the right role beats all of them; `chance`: how often it would by luck.
    None without a second role."""
    roles, others = cast(samples), torch.full((wrong, len(samples)), math.nan)
    for d in range(1, wrong + 1):
        speakers = {i: other for i, s in enumerate(samples) if (other := other_role(s, roles, d))}
        if speakers:
            wrongly = [replace(samples[i], role=other) for i, other in speakers.items()]
            others[d - 1, list(speakers)] = read_answers(model, tokenizer, config, wrongly)[0]
    known = ~others.isnan().all(0) & ~nats.isnan()
    if not known.any():
        return None
    right, others = nats[known], others[:, known]
    low, high = bootstrap(others.nanmean(0) - right)
    return {"right": right.mean().item(), "wrong": others.nanmean(0).mean().item(), "difference_interval": [low, high],
            "told_apart": (right < others.nan_to_num(math.inf).min(0).values).float().mean().item(),
            "chance": (1 / (1 + (~others.isnan()).sum(0))).mean().item()}


@torch.inference_mode()
def retrieval_top1(model, config, samples, e_t):
    """Share of test answers whose z_t is nearest to their own role's z_r."""
    weight = model.hyper.role_embedding.weight
    z_r, z_t = model.projections(weight, e_t.to(weight))                               # (R, d_z), (n, d_z)
    nearest = (F.normalize(z_t, dim=-1) @ F.normalize(z_r, dim=-1).t()).argmax(-1).tolist()
    return sum(config["roles"][s.role] == found for s, found in zip(samples, nearest)) / len(samples)


def evaluate(model, tokenizer, config, samples, decoding, voices="right", swap=False, read=False, batch_size=64):
    """(scores.json, predictions) of a run, or with voices None of the untouched backbone.

    swap: the questions answered as the wrong role too. read: likelihood, and retrieval where there are projections.
    """
    predictions = predict(model, tokenizer, config, samples, decoding, voices, batch_size)
    scores = {"by": made_by(config, decoding, voices), "splits": aggregate(predictions), "run": config["out"],
              "data": config["data"], "seed": config["seed"], "decoding": vars(decoding)}
    roles = cast(samples)
    swapped = [i for i, s in enumerate(samples) if other_role(s, roles)]
    if swap and swapped:
        wrong = predict(model, tokenizer, config, [samples[i] for i in swapped], decoding, "wrong", batch_size)
        scores["swap"] = {"right": mean_scores([predictions[i] for i in swapped]), "wrong": mean_scores(wrong)}
    if read and voices:
        nats, e_t = read_answers(model, tokenizer, config, samples)
        if found := likelihood(model, tokenizer, config, samples, nats):
            scores["likelihood"] = found
        if model.projections is not None:
            scores["retrieval_top1"] = retrieval_top1(model, config, samples, e_t)
    return scores, predictions


def report(model, tokenizer, run, samples):
    """Scores a finished run and the untouched backbone on test samples, writes both into the run folder, and prints
    before -> after, the role swap, and questions that every character answers."""
    config = read_run(run)
    decoding = Decoding(config["max_new_tokens"])
    scores, after = evaluate(model, tokenizer, config, samples, decoding, swap=True, read=True)
    scores_before, before = evaluate(model, tokenizer, config, samples, decoding, None)
    write_scores(run / "scores.json", scores, run / "predictions.jsonl", after)
    write_scores(run / "scores_backbone.json", scores_before, run / "predictions_backbone.jsonl", before)
    print(f"\n{len(samples)} test questions that training never saw, backbone -> {config['method']}:\n")
    print(table(scores, scores_before))
    for group in dict.fromkeys((s.language, s.split) for s in samples):
        of = [(s, a["answer"], b["answer"]) for s, a, b in zip(samples, after, before)
              if (s.language, s.split) == group]
        asked = Counter(s.question for s, _, _ in of)
        question = max(asked, key=asked.get)                             # the first that most of them were asked
        print(f"\n{question}\n  {pad('(the backbone)', 20)}{next(b for s, _, b in of if s.question == question)}")
        for s, answer, _ in of:
            if s.question == question:
                print(f"  {pad(s.role, 20)}{printable(answer)}")


# ----------------------------------------------------------------------------------------------------------- tables
def table(scores, before=None):
    """Scores as text, per role and split: n, the metrics, the interval of ROUGE-L; with `before`, ROUGE-L and BLEU-4
    before -> after. Below it what else was measured."""
    splits = scores["splits"]
    heads = ("rougeL", "bleu4") if before else ("n", *METRICS, "rougeL, 95 %")
    widths = [16, 16] if before else [6, 8, 8, 8, 8, 16]

    def line(title, cells_of):
        cells = "".join(pad(cell, w) for split in splits for cell, w in zip(cells_of(split), widths))
        return (pad(title, 22) + cells).rstrip()

    def cells(new, old):
        if new is None:
            return ["-"] * len(heads)
        if before:
            return [f"{old[m]:5.1f} -> {new[m]:5.1f}" for m in heads]
        low, high = new["interval"]["rougeL"] if "interval" in new else (math.nan, math.nan)
        return [str(new["n"]), *(f"{new[m]:.2f}" for m in METRICS), "" if low != low else f"[{low:.1f}, {high:.1f}]"]

    def row(title, of):
        """One line; of(a split's scores) is an S, or None where a role has no line in that split."""
        return line(title, lambda s: cells(of(splits[s]), of(before["splits"][s]) if before else None))

    def mean_over_roles(values):
        of = values["roles"].values()
        return {m: sum(v[m] for v in of) / len(of) for m in METRICS} | {"n": len(of)}
    lines = [line("", lambda s: [s, *[""] * (len(heads) - 1)]), line("", lambda s: heads)]
    for role in dict.fromkeys(role for values in splits.values() for role in values["roles"]):
        lines.append(row(role[:21], lambda values, role=role: values["roles"].get(role)))
    lines += [row("mean over roles", mean_over_roles), row("all lines", lambda values: values["overall"])]
    if swap := scores.get("swap"):
        lines.append(f"role swap: answers as the right role {swap['right']['rougeL']:.1f} ROUGE-L, "
                     f"as the wrong role {swap['wrong']['rougeL']:.1f}")
    if read := scores.get("likelihood"):
        lines.append(f"likelihood: {read['right']:.3f} nats per token of the reference as the right role, "
                     f"{read['wrong']:.3f} as a wrong one; {100 * read['told_apart']:.1f} % told apart "
                     f"({100 * read['chance']:.0f} % by chance)")
    if "retrieval_top1" in scores:
        lines.append(f"retrieval: {100 * scores['retrieval_top1']:.1f} % of test answers are nearest to their own role")
    return "\n".join(lines)


def write_scores(path, scores, lines_path=None, predictions=()):
    """Writes scores (JSON) and, beside them, the predictions they are the means of (JSONL)."""
    if lines_path:
        write_jsonl(lines_path, predictions)
    write_json(path, scores)


# --------------------------------------------------------------------------------------------------------- commands
def read_predictions(path, language="en", trust=False):
    """The lines of a file of answers, each with its metrics (if `trust`, those that it has already); language is for
    lines that do not say theirs. ValueError names the line that lacks something."""
    predictions = []
    for place, p in read_jsonl(path):
        p = {"language": language, "question": ""} | p
        for key in ("split", "role", "question", "answer"):
            if not isinstance(p.get(key), str):
                raise ValueError(f'{place}: "{key}" is missing or not text')
        references = p.get("references")
        if not isinstance(references, list) or not references or not all(isinstance(t, str) for t in references):
            raise ValueError(f'{place}: "references" has to be a list of at least one text')
        scored = trust and set(METRICS) <= p.keys()
        predictions.append(p if scored else p | score_answer(p["answer"], references, p["language"]))
    if not predictions:
        raise ValueError(f"{path} holds no prediction")
    return predictions


def asked_samples(args, data, language, generalization="instruction", roles=None):
    """The test lines that --split and --limit ask for; of `roles` only, if given."""
    splits = (args.split,) if args.split else SPLITS
    samples = load_rolebench(fetch_data(data), language, "test", splits, generalization)
    return some([s for s in samples if roles is None or s.role in roles], args.limit)


def ask(url, model, messages, pauses=(1, 4, 15, 60), **options):
    """What an OpenAI-compatible service answers to chat messages; asked again after each pause (seconds) while it is
    busy, slow or down. The key comes from OPENAI_API_KEY and is kept nowhere. ValueError when it will not answer."""
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import OfflineModeIsEnabled
    client = InferenceClient(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=120)
    for pause in (*pauses, None):
        try:
            answers = client.chat_completion(messages, model=model, **options).choices
            return (answers[0].message.content or "").strip()
        except Exception as e:                                           # whatever may go wrong at the other end
            status = getattr(getattr(e, "response", None), "status_code", None)
            if pause is None or status in (400, 401, 403, 404, 422) or isinstance(e, OfflineModeIsEnabled):
                reason = (str(e).strip() or type(e).__name__).splitlines()[0]
                raise ValueError(f"{url} does not answer: {reason}") from None
            time.sleep(pause)


def appended(path, names, items, work, workers=8):
    """The records of items, dicts: work(item) has the item's fields `names` and is appended to a JSONL as it arrives.

    Items that agree with a record in `names` have been worked on already, so an interrupted collection goes on where
    it was; a line cut off in mid-write is dropped. ValueError, with nothing touched, for a file of something else.
    """
    path, text, cut = Path(path), "", ""
    if path.exists():
        text, _, cut = path.read_text("utf8").rpartition("\n")
    records = [parse_json(line, f"{path}:{n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    foreign = [n for n, record in enumerate(records, 1) if not set(names) <= record.keys()]
    if foreign or cut and not cut.startswith("{"):
        raise ValueError(f"{path}:{(foreign or [len(records) + 1])[0]} is no line of this collection: choose another "
                         f"--out")
    if cut:
        write_text(path, text + "\n")
    key = lambda item: json.dumps([item[n] for n in names])              # noqa: E731
    wanted, known = {key(item): item for item in items}, {key(r): r for r in records}
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool, open(path, "a", encoding="utf8") as file:
        jobs = [pool.submit(work, item) for k, item in wanted.items() if k not in known]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc=path.name):
                record = job.result()
                known[key(record)] = record
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
        finally:
            pool.shutdown(cancel_futures=True)
    return [known[k] for k in wanted]


def collect(args):
    """The test questions asked of a service, each with its role's description; the answers go to --out's .jsonl."""
    if not (args.data and args.out and args.endpoint_model):
        raise ValueError("--endpoint needs --endpoint-model, --data and --out FILE.json")
    profiles, decoding = load_profiles(fetch_data(args.data), args.language), decoding_from_args(args, args.language)
    by = f"{args.endpoint_model} at {args.endpoint}, {args.data} ({args.language}); {decoding}"

    def work(item):
        messages = [{"role": "system", "content": persona_of(item["role"], profiles)},
                    {"role": "user", "content": item["question"]}]
        text = ask(args.endpoint, args.endpoint_model, messages, max_tokens=decoding.max_new_tokens,
                   temperature=decoding.temperature, top_p=decoding.top_p)
        return line_of(Sample(**{k: v for k, v in item.items() if k != "by"}), text, by)
    items = [vars(s) | {"by": by} for s in asked_samples(args, args.data, args.language)]
    return appended(Path(args.out).with_suffix(".jsonl"), ("by", "split", "role", "question"), items, work)


def score(args):
    """Scores a run, a file of answers or a service on test lines; a run's scores.json and predictions.jsonl go into
    its folder."""
    out, lines = args.out and Path(args.out), None
    if sum(map(bool, (args.run, args.predictions, args.endpoint))) != 1:
        raise ValueError("one of --run, --predictions and --endpoint says what to score")
    if args.backbone and (args.swap_roles or args.likelihood):
        raise ValueError("--swap-roles and --likelihood are about a run's roles: the untouched --backbone has none")
    if args.batch_size < 1 or args.limit < 0:
        raise ValueError("--batch-size has to be positive, and --limit 0 or more")
    if out:
        if out.suffix == ".jsonl":
            raise ValueError(f"--out takes the scores, FILE.json; the answers go beside it, into {out}")
        out.parent.mkdir(parents=True, exist_ok=True)
    if args.predictions or args.endpoint:
        predictions = collect(args) if args.endpoint else read_predictions(args.predictions, args.language)
        scores = {"by": predictions[0].get("by", args.predictions), "splits": aggregate(predictions)}
    else:
        model, tokenizer, config = load_run(args.run, args.device, args.compile)
        config |= {"out": str(Path(args.run)), "data": args.data or config["data"]}
        samples = asked_samples(args, config["data"], config["language"], config.get("generalization", "instruction"),
                                config["roles"])
        if not samples:
            raise ValueError("no test line is about a role of this run")
        decoding = decoding_from_args(args, config["language"], config["max_new_tokens"])
        scores, predictions = evaluate(model, tokenizer, config, samples, decoding, None if args.backbone else "right",
                                       args.swap_roles, args.likelihood, args.batch_size)
        if out:
            lines = out.with_suffix(".jsonl")
        elif not args.limit and not args.split:
            scores, out, lines = place_in_run(Path(args.run), "_backbone" * args.backbone, scores)
    print(f"{scores['by']}\n{table(scores)}")
    if not out:
        return print("nothing written: --out FILE.json keeps it")
    write_scores(out, scores, lines, predictions)
    print(f"wrote {out}" + (f" and {lines}" if lines else ""))


def place_in_run(run, kind, scores):
    """(scores, path, path of the predictions) in a run folder: over scores made in the same way, which may have been
    richer, but beside those of other data or decoding."""
    n = 1
    while (path := run / f"scores{kind}{f'-{n}' * (n > 1)}.json").is_file():
        old = json.loads(path.read_text("utf8"))
        if all(old.get(k) == scores[k] for k in ("data", "decoding")):
            scores = {k: old[k] for k in ("swap", "likelihood", "retrieval_top1") if k in old} | scores
            break
        n += 1
    return scores, path, run / path.name.replace("scores", "predictions").replace(".json", ".jsonl")


class Stream:
    """Prints text as its tokens come, holding back a sign whose bytes are not all there yet."""
    def __init__(self, tokenizer):
        self.tokenizer, self.ids, self.text = tokenizer, [], ""

    def __call__(self, tokens, end=""):
        self.ids += tokens
        text = self.tokenizer.decode(self.ids)
        if end or not text.endswith("\ufffd"):
            print(printable(text[len(self.text):]), end=end, flush=True)
            self.text = text


HELP = ("/role NAME changes the speaker, /roles lists them, /all QUESTION asks everybody, /blend A B 0.3 mixes two "
        "(seven tenths A), /new forgets, /quit ends.")


class Conversation:
    """A chat with a run's characters: who speaks, and the turns so far, as many as the context holds."""
    def __init__(self, run, role, args):
        self.model, self.tokenizer, self.config = load_run(run, args.device, args.compile)
        self.decoding, self.history = decoding_from_args(args, self.config["language"]), []
        self.room = self.model.backbone.config.max_positions - self.decoding.max_new_tokens
        if self.room < 1:
            raise ValueError(f"--max-new-tokens {self.decoding.max_new_tokens} leaves no room for a question: the "
                             f"model reads at most {self.model.backbone.config.max_positions}")
        self.turn_to(role or next(iter(self.config["roles"])))

    def turn_to(self, name):
        """Another role speaks from now on; ValueError suggests the nearest names."""
        self.name, self.told, self.speaker = name, name, role_id(name, self.config["roles"])

    def blend(self, text):
        """"A B 0.3": a mixture of two role embeddings, or of whatever else a method has for a role."""
        *names, weight = text.split()
        roles, mix = self.config["roles"], [0.0] * len(self.config["roles"])
        pairs = [(" ".join(names[:i]), " ".join(names[i:])) for i in range(1, len(names))]
        found = next((pair for pair in pairs if pair[0] in roles and pair[1] in roles), None)
        if not found or not re.fullmatch(r"0?\.\d+|[01](\.0*)?", weight):
            raise ValueError("/blend takes two names and a weight from 0 to 1, such as /blend "
                             f"{' '.join([*roles, *roles][:2])} 0.5")
        mix[roles[found[0]]] += 1 - float(weight)
        mix[roles[found[1]]] += float(weight)
        self.name, self.told, self.speaker = " + ".join(found), found[float(weight) > 0.5], mix

    def answer(self, question):
        """Streams the answer, and remembers it; the oldest turns go when the context is full."""
        told, history = persona(self.told, self.config), list(self.history)
        while len(prompt := self.tokenizer.prompt(question, told, history)) > self.room and history:
            history = history[1:]
        if len(prompt) > self.room:
            raise ValueError(f"a question of {len(prompt)} tokens leaves no room for an answer in a context of "
                             f"{self.model.backbone.config.max_positions}")
        if forgotten := len(self.history) - len(history):
            print(f"(the context is full: {forgotten} of the oldest turns forgotten)")
        stream = Stream(self.tokenizer)
        print(f"{self.name}: ", end="", flush=True)
        generate(self.model, [prompt], [self.speaker], self.tokenizer.stop_ids, self.decoding, on_token=stream)
        stream([], end="\n")
        self.history = [*history, (question, stream.text)]

    def everybody(self, question):
        """The answers of all roles to a question out of any conversation, in one mixed batch."""
        names, ids = zip(*self.config["roles"].items())
        prompts = [self.tokenizer.prompt(question, persona(name, self.config)) for name in names]
        for name, text in zip(names, generate_texts(self.model, self.tokenizer, prompts, ids, self.decoding)):
            print(f"{pad(name, 20)}  {printable(text)}")


def chat(args):
    """Talks: reads questions from standard input, streams the answers."""
    talk = Conversation(args.run, args.role, args)
    sys.stdin.reconfigure(errors="replace")                              # a stray byte ends no conversation
    with suppress(ImportError):                                          # where there is one, arrow keys edit the line
        import readline  # noqa: F401
    print(f"You are talking to {talk.name}. {HELP}")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
            command, _, rest = line.partition(" ")
            if command == "/quit":
                return
            elif command == "/roles":
                print(", ".join(talk.config["roles"]))
            elif command == "/new":
                talk.history = []
            elif command == "/all" and rest:
                talk.everybody(rest.strip())
            elif command in ("/role", "/blend") and rest:
                (talk.turn_to if command == "/role" else talk.blend)(rest.strip())
                print(f"Now talking to {talk.name}.")
            elif command.startswith("/"):
                print(f"({HELP})")
            elif line:
                talk.answer(line)
        except ValueError as e:
            print(f"({e})")
        except (EOFError, KeyboardInterrupt):
            return print()


def parse_args(argv):
    """The command line: `score` and `chat`, and what each takes."""
    parser = argparse.ArgumentParser(description="Score a run, or talk to it.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="score | chat")
    for name, function in (("score", score), ("chat", chat)):
        p = commands.add_parser(name, help=function.__doc__, allow_abbrev=False)
        p.set_defaults(function=function)
        p.add_argument("--run", help="a run folder of train.py")
        p.add_argument("--device", default="auto")
        p.add_argument("--compile", action="store_true", help="slow to start, then faster; CUDA graphs on a GPU")
        p.add_argument("--decode", choices=("greedy", "official"), default="greedy",
                       help="official: the authors' sampling for the run's language")
        for f in fields(Decoding):
            p.add_argument(f"--{f.name.replace('_', '-')}", type=f.type, default=argparse.SUPPRESS)
        if function is chat:
            p.add_argument("--role", help="who speaks first; default: the first role")
            continue
        p.add_argument("--data", help="another data folder than the run's")
        p.add_argument("--split", choices=SPLITS)
        p.add_argument("--limit", type=int, default=0, help="test lines per split; 0: all")
        p.add_argument("--batch-size", type=int, default=64)
        p.add_argument("--swap-roles", action="store_true", help="also answer as the wrong role, and score that")
        p.add_argument("--likelihood", action="store_true", help="also read the references: likelihood, retrieval")
        p.add_argument("--backbone", action="store_true", help="score the untouched backbone")
        p.add_argument("--predictions", help="score this JSONL instead of a run")
        p.add_argument("--endpoint", help="URL of an OpenAI-compatible service to score instead (key: OPENAI_API_KEY)")
        p.add_argument("--endpoint-model", help="the service's name of the model")
        p.add_argument("--language", choices=("en", "zh"), default="en", help="of --endpoint, or of --predictions")
        p.add_argument("--out", help="JSON file; default: scores.json in the run folder")
    return parser.parse_args(argv)


def main():
    """Runs a command; bad input ends it with one line and exit code 1."""
    args = parse_args(sys.argv[1:])
    try:
        if args.function is chat and not args.run:
            raise ValueError("name a run folder with --run")
        args.function(args)
    except (ValueError, OSError) as e:
        sys.exit(f"eval.py: {e}")
    except KeyboardInterrupt:
        sys.exit("eval.py: interrupted")


if __name__ == "__main__":
    main()
