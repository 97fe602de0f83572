"""Generation, chat, metrics and scoring.

    python eval.py score --run runs/demo [--split general|role_specific] [--limit N] [--swap-roles] [--likelihood]
    python eval.py score --run runs/demo --backbone                      # the untouched backbone
    python eval.py score --predictions answers.jsonl --language zh       # anybody's answers, no model
    python eval.py score --endpoint URL --endpoint-model NAME --data DIR --language zh --out answers.json
    python eval.py chat  --run runs/demo --role "NAME"

BLEU-4 and ROUGE are the paper's: sentence BLEU with nltk's smoothing method 3 and the F of the `rouge` package, best
reference per metric, Chinese by character. B batch, T prompt tokens of the longest row, V vocabulary.
"""
import argparse
import json
import math
import os
import re
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import model as backbones
from data import (
    SPLITS,
    Sample,
    Tokenizer,
    collate,
    encode_rows,
    fetch,
    load_profiles,
    load_rolebench,
    parse_json,
    persona_of,
    read_jsonl,
    role_id,
)
from hycora_layer import AdapterConfig, HyperModel
from losses import pool_response, response_cross_entropy

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
METRICS = ("bleu4", "rouge1", "rouge2", "rougeL")


# ---------------------------------------------------------------------------------------------------- loading a run
def pick_device(name="auto"):
    """"auto" is the GPU if there is one. ValueError for a device that this machine has not."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f"device {name!r} cannot be used here: {str(e).splitlines()[0]}") from None
    return name


def build(config, num_roles, device):
    """(HyperModel, Tokenizer) of a configuration dict: its backbone, freshly adapted."""
    folder = backbones.fetch(config["model"])
    tokenizer = Tokenizer(folder, config["template"])
    backbone = backbones.Transformer.from_pretrained(folder, DTYPES[config["precision"]], device)
    adapter = AdapterConfig(**{f.name: config[f.name] for f in fields(AdapterConfig) if f.name != "num_roles"})
    return HyperModel(backbone, replace(adapter, num_roles=num_roles)), tokenizer


def read_run(folder):
    """The config of a run folder, with "roles": {name: id}."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.json")
    try:
        config, roles = (json.loads((folder / name).read_text("utf8")) for name in ("config.json", "roles.json"))
        return {"model": config["model"]} | config | {"roles": roles}
    except (ValueError, TypeError, KeyError) as e:
        raise ValueError(f"{folder}: config.json or roles.json is not a run's ({type(e).__name__}: {e})") from None


def load_run(folder, device="auto", compiled=False):
    """(model, tokenizer, config) of a finished run, ready to speak; config["roles"] is {name: id}."""
    config = read_run(folder)
    model, tokenizer = build(config, len(config["roles"]), pick_device(device))
    if compiled:
        model.backbone.compile_blocks()
    return model.load(folder).eval(), tokenizer, config


# ------------------------------------------------------------------------------------------------------- generation
@dataclass(frozen=True)
class Decoding:
    """How answers are drawn. temperature 0 is greedy; then the others but repetition_penalty have no say."""
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0                      # 0: all
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __str__(self):
        changed = [f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(["sampled" if self.temperature else "greedy", *changed])


OFFICIAL = {"zh": Decoding(100, 0.95, 50, 0.7), "en": Decoding(512, 0.7, 40, 0.9)}     # the authors' evaluation scripts


def choose(logits, d, uniform, seen):
    """One token id per row of logits (B, V) in fp32. uniform: (B,) in [0, 1) decides: no row depends on another.

    seen: (B, V) bool, the tokens that repetition_penalty is for.
    """
    if d.repetition_penalty != 1:
        penalised = torch.where(logits > 0, logits / d.repetition_penalty, logits * d.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if d.temperature == 0:
        return logits.argmax(-1)
    p, ids = (logits / d.temperature).softmax(-1).sort(-1, descending=True)
    if d.top_k:
        p[:, d.top_k:] = 0
        p = p / p.sum(-1, keepdim=True)
    p = p * (p.cumsum(-1) - p < d.top_p)                                 # always keeps the likeliest
    cdf = p.cumsum(-1)
    rank = (cdf <= uniform[:, None] * cdf[:, -1:]).sum(-1, keepdim=True).clamp(max=logits.size(-1) - 1)
    return ids.gather(-1, rank).squeeze(-1)


def head(backbone, h):
    """Logits (B, V) in fp32 of final hidden states (B, C). W in front: for few rows MKL then takes half the time."""
    return (backbone.lm_head.weight @ h.mT).mT.float()


def next_logits(backbone, cache, positions):
    """A function of (tokens (B,), positions (B,)), where they stand, to the logits (B, V) of what follows them.

    On a GPU Python would launch the kernels of a step more slowly than they run: with a compiled backbone one step is
    recorded as a CUDA graph, and replayed. The trial runs before it write into the slots at `positions`, where the
    first real step will write.
    """
    def step(tokens, positions):
        return head(backbone, backbone.hidden(tokens[:, None], cache, positions)[:, 0])
    if not (backbone.compiled and backbone.device.type == "cuda"):
        return step
    inputs, graph = (torch.zeros_like(positions), positions.clone()), torch.cuda.CUDAGraph()
    with torch.cuda.device(backbone.device):
        for _ in range(2):                                               # compiles, and chooses kernels
            step(*inputs)
        with torch.cuda.graph(graph):
            logits = step(*inputs)

    def replay(*values):
        for place, value in zip(inputs, values):
            place.copy_(value)
        graph.replay()
        return logits
    return replay


@torch.inference_mode()
def generate(model, prompts, role_ids, stop_ids, decoding=Decoding(), seeds=None, on_token=None):
    """Continues prompts (lists of ids), row b as role_ids[b]; role_ids None: the untouched backbone speaks.

    Rows of any length share a batch: prompts are padded on the right, and each row writes its next token into its own
    next slot of the cache, over the padding. seeds: one int per row, default decoding.seed + row. on_token is called
    with each step's list of ids. Returns lists of ids without the stop token.
    """
    backbone, device, B = model.backbone, model.backbone.device, len(prompts)
    T, room = max(map(len, prompts)), backbone.config.max_positions
    if T >= room:
        raise ValueError(f"a prompt of {T} tokens leaves no room for an answer: the model reads at most {room}")
    steps = min(decoding.max_new_tokens, room - T)
    ids = torch.tensor([p + [0] * (T - len(p)) for p in prompts], device=device)          # (B, T)
    positions = torch.tensor([len(p) for p in prompts], device=device)                    # (B,): where row b goes on
    rows, stops = torch.arange(B, device=device), torch.tensor(sorted(stop_ids), device=device)
    seeds = [decoding.seed + b for b in range(B)] if seeds is None else seeds
    uniform = torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(device)
    seen = None
    if decoding.repetition_penalty != 1:
        seen = torch.zeros(B, backbone.config.vocab_size, dtype=torch.bool, device=device)
        for b, p in enumerate(prompts):
            seen[b, torch.tensor(p, device=device)] = True
    cache = backbone.new_cache(B, T + steps)
    answers, done = [[] for _ in prompts], torch.zeros(B, dtype=torch.bool, device=device)
    with model.speaking_as(torch.as_tensor(role_ids)) if role_ids is not None else nullcontext():
        h = backbone.hidden(ids, cache)[rows, positions - 1]                              # (B, C): last real token
        logits, follow = head(backbone, h), None
        for step in range(steps):
            token = choose(logits, decoding, uniform[:, step], seen)
            done |= torch.isin(token, stops)
            said = torch.where(done, -1, token).tolist()
            for answer, t in zip(answers, said):
                if t >= 0:
                    answer.append(t)
            if max(said) < 0:
                break
            if on_token:
                on_token(said)
            if step + 1 < steps:
                if seen is not None:
                    seen[rows, token] = True
                follow = follow or next_logits(backbone, cache, positions)
                logits = follow(token, positions)
                positions = positions + 1
    return answers


def answer(model, tokenizer, prompts, role_ids, decoding=Decoding(), batch_size=64, desc=None):
    """Texts that answer prompts (lists of ids), in their order; prompts of similar length share a batch."""
    texts, order = [None] * len(prompts), sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with tqdm(total=len(prompts), desc=desc, disable=desc is None, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start:start + batch_size]
            roles = None if role_ids is None else [role_ids[i] for i in chosen]
            seeds = [decoding.seed + i for i in chosen]
            out = generate(model, [prompts[i] for i in chosen], roles, tokenizer.stop_ids, decoding, seeds)
            for i, ids in zip(chosen, out):
                texts[i] = tokenizer.decode(ids)
            bar.update(len(chosen))
    return texts


# ---------------------------------------------------------------------------------------------------------- metrics
def words(text, language):
    """Chinese: every sign but white space. English: as nltk's word_tokenize, with sentences cut after [.!?] and a blank
    where nltk asks its Punkt model (over RoleBench's 4,750 English answers that changes BLEU by less than 0.01)."""
    if language == "zh":
        return [c for c in text if not c.isspace()]
    found = []
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        sentence = re.sub(r"(?<!\.)\.([\])}>\"'”’]*)$", r" . \1", sentence)         # only the last period is a word
        sentence = re.sub(r"([;@#$%&?!*\[\](){}<>\"“”‘’«»`]|--+|\.{2,}|[,:](?!\d)|[‒-―])", r" \1 ", sentence)
        sentence = re.sub(r"(?i)(?<=\w)(n't|'(?:s|m|d|ll|re|ve))(?!\w)", r" \1", sentence)
        found += sentence.split()
    return found


def ngrams(tokens, n):
    """Counter of the n-grams of a list of words."""
    return Counter(zip(*(tokens[i:] for i in range(n))))


def bleu4(answer, references):
    """Sentence BLEU-4 of token lists against all references at once, in [0, 1].

    Smoothing method 3: the k-th order without any match counts as 1 / (2^k * its n-grams). No common word at all is 0.
    """
    log_p, misses = 0.0, 0
    for n in range(1, 5):
        have, allowed = ngrams(answer, n), Counter()
        for reference in references:
            allowed |= ngrams(reference, n)
        matches, total = (have & allowed).total(), max(1, have.total())
        if matches == 0:
            if n == 1:
                return 0.0
            misses += 1
            matches = 2.0 ** -misses
        log_p += math.log(matches / total) / 4
    closest = min((abs(len(r) - len(answer)), len(r)) for r in references)[1]
    return math.exp(log_p + min(0.0, 1 - closest / len(answer)))         # the second term: brevity penalty


def common_words(x, y):
    """The distinct words of a longest common subsequence of two word lists.

    Bit-parallel: after i words of x, V's zero bits mark where a common subsequence grows, so LCS(x[:i], y[:j]) is the
    number of zeros in V's first j bits. Going back through the rows, ties go the way of the `rouge` package.
    """
    where = defaultdict(int)
    for j, word in enumerate(y):
        where[word] |= 1 << j
    full = (1 << len(y)) - 1
    rows = [full]
    for word in x:
        V = rows[-1]
        u = V & where.get(word, 0)
        rows.append(((V + u) | (V - u)) & full)
    length = lambda i, j: j - (rows[i] & ((1 << j) - 1)).bit_count()     # noqa: E731
    i, j, found = len(x), len(y), set()
    while i and j:
        if x[i - 1] == y[j - 1]:
            i, j = i - 1, j - 1
            found.add(x[i])
        elif length(i - 1, j) > length(i, j - 1):
            i -= 1
        else:
            j -= 1
    return found


def rouge(answer, reference):
    """ROUGE-1, -2, -L (F, in [0, 1]) of two strings of blank-separated words, as the `rouge` package counts them:
    n-grams as sets, sentences cut at ".", ROUGE-L over the union of all sentence pairs. Nothing but periods is 0."""
    A, R = ([s.split() or [""] for s in text.split(".") if s] for text in (answer, reference))
    if not A or not R:
        return {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    a, r = sum(A, []), sum(R, [])
    union = set().union(*(common_words(ref, ans) for ref in R for ans in A))
    counts = {"rougeL": (len(union), len(set(a)), len(set(r)))}
    for n in (1, 2):
        x, y = set(ngrams(a, n)), set(ngrams(r, n))
        counts[f"rouge{n}"] = (len(x & y), len(x), len(y))
    scores = {}
    for name, (hit, have, want) in counts.items():
        p, q = hit / max(1, have), hit / max(1, want)
        scores[name] = 2 * p * q / (p + q + 1e-8)
    return scores


def metrics(answer, references, language):
    """{"bleu4", "rouge1", "rouge2", "rougeL"} of an answer in percent; of several references the best, per metric.

    English ROUGE takes words between blanks, English BLEU takes `words`: so does the authors' evaluation."""
    spaced = (lambda t: " ".join(words(t, "zh"))) if language == "zh" else (lambda t: t)
    each = [rouge(spaced(answer), spaced(r)) for r in references]
    best = {name: max(e[name] for e in each) for name in METRICS[1:]}
    best["bleu4"] = bleu4(words(answer, language), [words(r, language) for r in references])
    return {name: 100 * best[name] for name in METRICS}


def mean_scores(lines):
    """S of the run folder's contract over prediction lines: the mean of each metric, n, 95 % intervals; mean length in
    words, and distinct-1 and -2: different n-grams over all n-grams of the answers (low: it always says the same)."""
    values = [[line[m] for m in METRICS] for line in lines]
    low, high = bootstrap(values)
    said = [words(line["answer"], line.get("language", "en")) for line in lines]
    grams = [[g for answer in said for g in zip(*(answer[i:] for i in range(n)))] for n in (1, 2)]
    return {**dict(zip(METRICS, np.mean(values, 0).tolist())), "n": len(lines),
            "interval": {m: [low[i], high[i]] for i, m in enumerate(METRICS)},
            "length": sum(map(len, said)) / len(said),
            **{f"distinct{n}": len(set(g)) / max(1, len(g)) for n, g in enumerate(grams, 1)}}


def bootstrap(values, resamples=1000, seed=0):
    """95 % interval of the mean over test items, by drawing the items anew: (low, high) of values (n,) or (n, m).

    Of paired differences it tells whether a difference could be the luck of these items; other seeds are not in it."""
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).multinomial(len(values), [1 / len(values)] * len(values), resamples)
    return np.percentile(drawn @ values / len(values), (2.5, 97.5), axis=0).tolist()


def summarise(predictions):
    """{split: {"overall": S, "roles": {name: S}}} of prediction lines that carry their metrics."""
    splits = {}
    for split in sorted({p["split"] for p in predictions}):
        lines = [p for p in predictions if p["split"] == split]
        roles = dict.fromkeys(p["role"] for p in lines)
        splits[split] = {"overall": mean_scores(lines),
                         "roles": {role: mean_scores([p for p in lines if p["role"] == role]) for role in roles}}
    return splits


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
    return persona_of(role, config["profiles"]) if config["role_instruction"] or untouched else None


def line_of(sample, text, by, **more):
    """A line of predictions.jsonl, with its metrics; `by` says what made it."""
    return {"split": sample.split, "language": sample.language, "role": sample.role, "question": sample.question,
            "references": list(sample.answers), "answer": text, **more, "by": by,
            **metrics(text, sample.answers, sample.language)}


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
    texts, by = answer(model, tokenizer, prompts, ids, decoding, batch_size, desc), made_by(config, decoding, voices)
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
    backbone, told = model.backbone, config["profiles"] if config["role_instruction"] else None
    rows, _, _ = encode_rows([replace(s, answers=s.answers[:1]) for s in samples], config["roles"], tokenizer,
                             config["max_length"], told)
    rows.sort(key=lambda r: len(r.ids))
    nats, e_t = torch.full((len(samples),), math.nan), torch.full((len(samples), backbone.config.hidden_size), math.nan)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start:start + batch_size]
        batch = collate(chosen, tokenizer.eos_id, config["pool"]).to(backbone.device)
        with model.speaking_as(batch.role_ids):
            hidden = backbone.hidden(batch.input_ids).flatten(0, 1)                    # (B * T, C)
            counts = [len(r.ids) - r.prompt for r in chosen]
            sums = [response_cross_entropy(h, backbone.lm_head.weight, t) for h, t in
                    zip(hidden[batch.supervised].split(counts), batch.targets.split(counts))]
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
    scores = {"by": made_by(config, decoding, voices), "splits": summarise(predictions), "run": config["out"],
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
def columns(text):
    """The columns of a terminal that a text takes: a Chinese sign takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text, width):
    """Left-justified to `width` columns."""
    return text + " " * (width - columns(text))


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


def write_text(path, text):
    """Writes a file beside its place and renames it: it is what it was, or all of the new."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(text, "utf8")
    os.replace(temporary, path)


def write_scores(path, scores, lines_path=None, predictions=()):
    """Writes scores (JSON) and, beside them, the predictions they are the means of (JSONL)."""
    if lines_path:
        write_text(lines_path, "".join(json.dumps(p, ensure_ascii=False) + "\n" for p in predictions))
    write_text(path, json.dumps(scores, ensure_ascii=False, indent=1) + "\n")


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
        predictions.append(p if scored else p | metrics(p["answer"], references, p["language"]))
    if not predictions:
        raise ValueError(f"{path} holds no prediction")
    return predictions


def asked_samples(args, data, language, generalization="instruction", roles=None):
    """The test lines that --split and --limit ask for; of `roles` only, if given."""
    splits = (args.split,) if args.split else SPLITS
    samples = load_rolebench(fetch(data), language, "test", splits, generalization)
    return some([s for s in samples if roles is None or s.role in roles], args.limit)


def decoding_of(args, language, max_new_tokens=128):
    """--decode's settings, and over them what the command line says of its own."""
    if args.decode == "official" and language not in OFFICIAL:
        raise ValueError(f"--decode official is for one language, {' or '.join(OFFICIAL)}, and this is {language!r}")
    base = OFFICIAL[language] if args.decode == "official" else Decoding(max_new_tokens)
    d = replace(base, **{f.name: getattr(args, f.name) for f in fields(Decoding) if hasattr(args, f.name)})
    positive = min(d.top_p, d.repetition_penalty, d.max_new_tokens) > 0
    if not (positive and d.temperature >= 0 and d.top_k >= 0 and d.top_p <= 1):
        raise ValueError(f"decoding {d} is not possible: temperature and top-k are 0 or more, top-p is at most 1, and "
                         f"it, repetition-penalty and max-new-tokens are positive")
    return d


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
    profiles, decoding = load_profiles(fetch(args.data), args.language), decoding_of(args, args.language)
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
        scores = {"by": predictions[0].get("by", args.predictions), "splits": summarise(predictions)}
    else:
        model, tokenizer, config = load_run(args.run, args.device, args.compile)
        config |= {"out": str(Path(args.run)), "data": args.data or config["data"]}
        samples = asked_samples(args, config["data"], config["language"], config.get("generalization", "instruction"),
                                config["roles"])
        if not samples:
            raise ValueError("no test line is about a role of this run")
        decoding = decoding_of(args, config["language"], config["max_new_tokens"])
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


def printable(text):
    """Text without the control characters that a terminal would obey."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", " ", text)


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
        self.decoding, self.history = decoding_of(args, self.config["language"]), []
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
        for name, text in zip(names, answer(self.model, self.tokenizer, prompts, ids, self.decoding)):
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
