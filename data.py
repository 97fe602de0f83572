"""RoleBench in, batches out: reading, prompts, label masks, padding.

A line of RoleBench is one question to one role with one or more answers. Each answer becomes a row

    [ prompt ........ | response ... eos ]          supervised: exactly response + eos

B rows, T tokens of the longest, N supervised tokens of the batch. Rows are padded on the right.
"""
import difflib
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from files import fetch, parse_json, read_jsonl

SPLITS = ("general", "role_specific")
FOLDERS = {"en": "rolebench-eng/{}-generalization", "zh": "rolebench-zh"}
PROFILES = {"en": ["profiles-eng/desc.json", "roles_desc_en.json"],      # RoleBench's, the authors'
            "zh": ["profiles-zh/desc.json", "roles_desc_zh.json"]}


# ------------------------------------------------------------------------------------------------ reading RoleBench
@dataclass(frozen=True)
class Sample:
    """One question to one role. language: "en" or "zh", which decides how the metrics cut words."""
    split: str
    role: str
    question: str
    answers: tuple[str, ...]
    language: str


def parse_line(record, split, language, place):
    """The Sample of a line, texts stripped; ValueError says what the line lacks.

    A line is RoleBench's {"role", "question", "generated": [...]} or one of the authors' preprocessed files:
    {"role", "conversation": [{"human", "assistant"}]} to train on, {"role", "instruction", "input", "output"} to test.
    """
    question, answers = record.get("question"), record.get("generated")
    if "conversation" in record:
        turns = record["conversation"]
        if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
            raise ValueError(f'{place}: "conversation" has to be a list of one turn, {{"human", "assistant"}}')
        question, answers = turns[0].get("human"), turns[0].get("assistant")
    elif "output" in record:
        question, answers = record.get("input"), record["output"]        # its "instruction" is persona_of's business
    answers = [answers] if isinstance(answers, str) else answers
    for key, ok in (("role", isinstance(record.get("role"), str)),
                    ("question", isinstance(question, str)),
                    ("generated", isinstance(answers, list) and all(isinstance(a, str) for a in answers))):
        if not ok:
            raise ValueError(f'{place}: "{key}" is missing or not text')
    role, question, answers = record["role"].strip(), question.strip(), tuple(a.strip() for a in answers)
    if not role or not question or not answers or not all(answers):
        what = "role" if not role else "question" if not question else "answer"
        raise ValueError(f"{place}: empty {what}; fill it in or delete the line")
    return Sample(split, role, question, answers, language)


def languages(language):
    """("en",), ("zh",) or, for "all", both."""
    if language not in (*FOLDERS, "all"):
        raise ValueError(f"language is {language!r}; choose en, zh or all")
    return tuple(FOLDERS) if language == "all" else (language,)


def find_files(root, language, part, splits=SPLITS, generalization="instruction"):
    """[(path, split)] of a language's files of `part` ("train" or "test"), in RoleBench's layout or the authors'."""
    root, folder = Path(root), FOLDERS[language].format(generalization)
    found = [(root / folder / split / f"{part}.jsonl", split) for split in splits]
    for path in sorted(root.glob(f"role_bench_{language}*{part}*.json")):
        if "with_instruction" not in path.name:                          # the same lines with the role told in words
            split = next((s for s in SPLITS if s.split("_")[-1] in path.name), "both")
            if split == "both" and set(splits) != set(SPLITS):
                raise ValueError(f"{path} holds both splits, so --splits cannot choose one")
            found += [(path, split)] if split in (*splits, "both") else []
    return [(path, split) for path, split in found if path.is_file()]


def load_rolebench(root, language="all", part="train", splits=SPLITS, generalization="instruction"):
    """Samples of `part` ("train" or "test") of a folder in RoleBench's layout or the authors', in the files' order.

    generalization: which English test, "instruction" (new questions) or "role" (new roles). A language may lack a
    split. Raises FileNotFoundError without any file, ValueError for a broken line.
    """
    samples = []
    for lang in languages(language):
        files = find_files(root, lang, part, splits, generalization)
        if not files:
            raise FileNotFoundError(f"{root} has neither {FOLDERS[lang].format(generalization)}/*/{part}.jsonl nor "
                                    f"role_bench_{lang}*{part}*.json: --data takes a folder in RoleBench's layout (or "
                                    f"its hub id), --language one of its languages")
        samples += [parse_line(r, split, lang, place) for path, split in files for place, r in read_jsonl(path)]
    return samples


def load_profiles(root, language="all"):
    """{role: description} of a RoleBench folder; empty where it has none. ValueError for anything but text."""
    profiles = {}
    for path in (Path(root) / name for lang in languages(language) for name in PROFILES[lang]):
        if path.is_file():
            found = parse_json(path.read_bytes(), path)
            if strange := [role for role, text in found.items() if not isinstance(text, str)]:
                raise ValueError(f"{path}: the description of {strange[0]} is not text")
            profiles |= found
    return profiles


def choose_roles(samples, subset=""):
    """{name: id} in order of first appearance; subset: only these names, comma-separated, or only the first so many.

    Raises ValueError for a name that no sample has.
    """
    names = list(dict.fromkeys(s.role for s in samples))
    if subset.strip().isdigit():
        names = names[:int(subset)]
    elif subset.strip():
        known, names = dict.fromkeys(names), [n.strip() for n in subset.split(",")]
        for name in names:
            role_id(name, known)
    if not names:
        raise ValueError(f"role_subset {subset!r} leaves no role")
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def first_of_each(samples, n):
    """The first n samples of each role in each split, in their order."""
    seen = Counter()

    def early(s):
        seen[s.role, s.split] += 1
        return seen[s.role, s.split] <= n
    return list(filter(early, samples))


def role_id(name, roles):
    """roles[name]; ValueError suggests the nearest names."""
    if name not in roles:
        near = difflib.get_close_matches(name, roles, n=3, cutoff=0.3)
        raise ValueError(f"unknown role {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else
                                                       f"known: {', '.join(roles)}"))
    return roles[name]


def fetch_data(name):
    """The folder of a data set: itself if it is one, else RoleBench's files from the hub."""
    patterns = ["rolebench-*/t*.jsonl", "rolebench-*/rolegpt_baseline.jsonl", "profiles-*/desc.json"]
    return fetch(name, patterns, "dataset")


def persona_of(role, profiles):
    """The sentence that tells a model in words whom to play, for methods that have no other way to know."""
    return f"You are {role}. {profiles.get(role, '')}".strip()


# ------------------------------------------------------------------------------------------------- rows and batches
@dataclass(frozen=True)
class Row:
    """One training row: ids = prompt + response + stop; the first `prompt` of them are not supervised."""
    ids: list[int]
    prompt: int
    role_id: int
    complete: bool = True        # False: cut at max_length, so the stop token is missing
    sample: int = 0              # the index of the sample that it is an answer of


def encode_rows(samples, roles, tokenizer, max_length, profiles=None):
    """Rows of samples, one per answer. roles: {name: id}; profiles: {name: description} tells the role in words.

    A row longer than max_length loses its end, as in the authors' code; one whose prompt alone fills it is dropped.
    Returns (rows, number cut, number dropped). Raises ValueError for an unknown role or when no row is left.
    """
    rows, cut, dropped = [], 0, 0
    answers = iter(tokenizer.encode_batch([a for s in samples for a in s.answers]))
    for n, s in enumerate(tqdm(samples, desc="tokenising", leave=False, disable=len(samples) < 5000)):
        role = role_id(s.role, roles)
        prompt = tokenizer.prompt(s.question, persona_of(s.role, profiles) if profiles is not None else None)
        for _ in s.answers:
            ids = prompt + next(answers) + [tokenizer.stop_id]
            dropped += len(prompt) >= max_length
            cut += len(prompt) < max_length < len(ids)
            if len(prompt) < max_length:
                rows.append(Row(ids[:max_length], len(prompt), role, len(ids) <= max_length, n))
    if not rows:
        raise ValueError(f"no training row is left: {len(samples)} samples, max_length {max_length}")
    return rows, cut, dropped


def batch_order(rows, batch_size, seed, epoch, one_answer=False, balance_roles=False):
    """Index lists of one epoch's batches: shuffled, yet of similar lengths within a batch, so little is padding.

    one_answer: only one row of each sample, drawn anew every epoch. balance_roles: see `balanced`.
    The order depends on the arguments alone: that is all a resumed run needs to go on in mid-epoch.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(rows)))
    rng.shuffle(order)
    if one_answer:
        order = list({rows[i].sample: i for i in order}.values())        # the last of a sample's rows
    pool, batches = 32 * batch_size, []                   # sort within pools of 32 batches, then cut and mix
    for n, start in enumerate(range(0, len(order), pool)):
        chunk = sorted(order[start:start + pool], key=lambda i: len(rows[i].ids), reverse=n % 2)
        batches += [chunk[i:i + batch_size] for i in range(0, len(chunk), batch_size)]
    if balance_roles:
        batches = balanced(batches, [r.role_id for r in rows])
    rng.shuffle(batches)
    return batches


def balanced(batches, roles):
    """The batches, with rows swapped until each has two roles and a positive pair of Eq. 7, two rows of one role.

    The swap is with the nearest batch that can spare a row, so lengths stay similar. roles: role id of each row. A
    last batch of one or two joins the one before. Raises ValueError where no swap helps (one role in all, say).
    """
    def good(batch):
        return 2 <= len({roles[i] for i in batch}) < len(batch)

    def swap(n):
        """Makes batch n good by one swap; those before it stay good, those after it have their turn still."""
        outwards = (m for d in range(1, len(batches)) for m in (n + d, n - d) if 0 <= m < len(batches))
        for m in outwards:
            for i, j in itertools.product(batches[n], batches[m]):
                mine = [j if k == i else k for k in batches[n]]
                other = [i if k == j else k for k in batches[m]]
                if good(mine) and (good(other) or m > n and not good(batches[m])):
                    batches[n], batches[m] = mine, other
                    return True
        return False
    if len(batches) > 1 and len(batches[-1]) < 3:
        batches[-2:] = [batches[-2] + batches[-1]]
    for n in range(len(batches)):
        if not good(batches[n]) and not swap(n):
            raise ValueError(f"balance_roles: no way to give every batch two roles and two rows of one role "
                             f"({len(set(roles))} roles, batches of {len(batches[0])})")
    return batches


def padding_share(rows, batches):
    """The part of all tokens in these batches that is padding."""
    lengths = [[len(rows[i].ids) for i in batch] for batch in batches]
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


@dataclass
class Batch:
    """Positions are flat, b * T + t, and made here on the host, so that no step has to wait for a count."""
    input_ids: torch.Tensor      # (B, T)
    role_ids: torch.Tensor       # (B,)   stays on the CPU: its distinct values are found there
    supervised: torch.Tensor     # (N,)   positions whose next token is response or stop
    targets: torch.Tensor        # (N,)   those next tokens
    pooled: torch.Tensor         # (P,)   positions that represent a row's response in Eq. 5 ...
    pooled_rows: torch.Tensor    # (P,)   ... and the row each belongs to

    def to(self, device):
        """All but role_ids on `device`; to a GPU from pinned memory, so that nobody waits for the copy."""
        host = {k: v for k, v in vars(self).items() if k != "role_ids"}
        if device.type == "cuda":
            host = {k: v.pin_memory() for k, v in host.items()}
        return Batch(role_ids=self.role_ids, **{k: v.to(device, non_blocking=True) for k, v in host.items()})


def collate(rows, pad_id, pool="last"):
    """Rows to a Batch. pool: which response tokens stand for the response in Eq. 5: its "last" (the stop token),
    the one "before_eos", or the "mean" of all."""
    B, T = len(rows), max(len(r.ids) for r in rows)
    ids = torch.full((B, T), pad_id)
    supervised, targets, pooled, pooled_rows = [], [], [], []
    for b, r in enumerate(rows):
        n = len(r.ids)
        ids[b, :n] = torch.tensor(r.ids)
        supervised += range(b * T + r.prompt - 1, b * T + n - 1)
        targets += r.ids[r.prompt:]
        first = {"last": n - 1, "before_eos": max(n - 1 - r.complete, r.prompt), "mean": r.prompt}[pool]
        stop = first + 1 if pool == "before_eos" else n
        pooled += range(b * T + first, b * T + stop)
        pooled_rows += [b] * (stop - first)
    t = torch.tensor
    return Batch(ids, t([r.role_id for r in rows]), t(supervised), t(targets), t(pooled), t(pooled_rows))
