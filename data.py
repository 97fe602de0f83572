"""From RoleBench to batches: reading, training examples, labels, batches.

A line of RoleBench is one question to one role, with one or more answers. Each answer becomes an example:

    input_ids   prompt ........ response ... stop    padding ...
    labels      -100 .......... response ... stop    -100 ......

Exactly the response and the stop token are supervised. B examples of a batch, T tokens of the longest, N supervised
tokens of the batch.
"""
import difflib
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from files import fetch, parse_json, read_jsonl

IGNORE = -100                           # the label of a token that is not supervised
SPLITS = ("general", "role_specific")
FOLDERS = {"en": "rolebench-eng/{}-generalization", "zh": "rolebench-zh"}
PROFILES = {"en": "profiles-eng/desc.json", "zh": "profiles-zh/desc.json"}


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
    """The Sample of a line {"role", "question", "generated": [answer, ...]}, texts stripped.

    ValueError names the place and says what the line lacks.
    """
    answers = record.get("generated")
    if isinstance(answers, str):
        answers = [answers]
    is_text = {
        "role": isinstance(record.get("role"), str),
        "question": isinstance(record.get("question"), str),
        "generated": isinstance(answers, list) and all(isinstance(answer, str) for answer in answers),
    }
    for key, ok in is_text.items():
        if not ok:
            raise ValueError(f'{place}: "{key}" is missing or not text')

    role = record["role"].strip()
    question = record["question"].strip()
    answers = tuple(answer.strip() for answer in answers)
    empty = {"role": not role, "question": not question, "answer": not answers or not all(answers)}
    for what, is_empty in empty.items():
        if is_empty:
            raise ValueError(f"{place}: empty {what}; fill it in or delete the line")
    return Sample(split, role, question, answers, language)


def languages(language):
    """("en",), ("zh",) or, for "all", both."""
    if language not in (*FOLDERS, "all"):
        raise ValueError(f"language is {language!r}; choose en, zh or all")
    return tuple(FOLDERS) if language == "all" else (language,)


def rolebench_files(root, language, part, splits=SPLITS, generalization="instruction"):
    """{split: path} of the files of a language and `part` ("train" or "test") in a folder of RoleBench's layout."""
    folder = Path(root) / FOLDERS[language].format(generalization)
    files = {split: folder / split / f"{part}.jsonl" for split in splits}
    return {split: path for split, path in files.items() if path.is_file()}


def load_rolebench(root, language="all", part="train", splits=SPLITS, generalization="instruction"):
    """Samples of `part` ("train" or "test") of a folder in RoleBench's layout, in the files' order.

    generalization: which English test, "instruction" (new questions) or "role" (new roles). A language may lack a
    split. Raises FileNotFoundError without any file, ValueError for a broken line.
    """
    samples = []
    for lang in languages(language):
        files = rolebench_files(root, lang, part, splits, generalization)
        if not files:
            layout = f"{FOLDERS[lang].format(generalization)}/*/{part}.jsonl"
            raise FileNotFoundError(f"{root} has no {layout}: --data takes a folder in RoleBench's layout (or "
                                    f"its hub id), --language one of its languages; python -m tools.convert brings "
                                    f"other files into that layout")
        for split, path in files.items():
            samples += [parse_line(record, split, lang, place) for place, record in read_jsonl(path)]
    return samples


def load_profiles(root, language="all"):
    """{role: description} of a RoleBench folder; empty where it has none. ValueError for anything but text."""
    profiles = {}
    for lang in languages(language):
        path = Path(root) / PROFILES[lang]
        if not path.is_file():
            continue
        for role, text in parse_json(path.read_bytes(), path).items():
            if not isinstance(text, str):
                raise ValueError(f"{path}: the description of {role} is not text")
            profiles[role] = text
    return profiles


def choose_roles(samples, subset=""):
    """{name: id} in order of first appearance; subset: only these names, comma-separated, or only the first so many.

    Raises ValueError for a name that no sample has.
    """
    names = list(dict.fromkeys(s.role for s in samples))
    if subset.strip().isdigit():
        names = names[:int(subset)]
    elif subset.strip():
        known = dict.fromkeys(names)
        names = list(dict.fromkeys(name.strip() for name in subset.split(",")))
        for name in names:
            role_id(name, known)
    if not names:
        raise ValueError(f"role_subset {subset!r} leaves no role")
    return {name: i for i, name in enumerate(names)}


def first_of_each(samples, n):
    """The first n samples of each role in each split, in their order."""
    seen = Counter()
    chosen = []
    for s in samples:
        seen[s.role, s.split] += 1
        if seen[s.role, s.split] <= n:
            chosen.append(s)
    return chosen


def load_test_samples(data, language, split=None, limit=0, generalization="instruction", roles=None):
    """Test samples of a data set; only of one split, of `roles`, and at most `limit` of each split, if given."""
    splits = (split,) if split else SPLITS
    samples = load_rolebench(fetch_data(data), language, "test", splits, generalization)
    return subsample([s for s in samples if roles is None or s.role in roles], limit)


def subsample(samples, limit):
    """At most `limit` samples of each split, evenly spread over the file and thereby over the roles; 0: all."""
    chosen = []
    for split in dict.fromkeys(s.split for s in samples):
        of_split = [s for s in samples if s.split == split]
        n = min(limit or len(of_split), len(of_split))
        chosen += [of_split[i * len(of_split) // n] for i in range(n)]
    return chosen


def roles_by_language(samples):
    """{language: its roles, in the order in which they occur}."""
    roles = {}
    for s in samples:
        roles.setdefault(s.language, {})[s.role] = None
    return {language: list(names) for language, names in roles.items()}


def other_roles(samples, distance=1):
    """For each sample the role so many places after its own among those of its language; None if that is its own."""
    roles = roles_by_language(samples)
    others = []
    for s in samples:
        names = roles[s.language]
        other = names[(names.index(s.role) + distance) % len(names)]
        others.append(other if distance < len(names) else None)
    return others


def role_id(name, roles):
    """roles[name]; ValueError suggests the nearest names."""
    if name in roles:
        return roles[name]
    near = difflib.get_close_matches(name, roles, n=3, cutoff=0.3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(roles)}"
    raise ValueError(f"unknown role {name!r}; {advice}")


def fetch_data(name):
    """The folder of a data set: itself if it is one, else RoleBench's files from the hub."""
    patterns = ["rolebench-*/t*.jsonl", "rolebench-*/rolegpt_baseline.jsonl", "profiles-*/desc.json"]
    return fetch(name, patterns, "dataset")


def persona_of(role, profiles):
    """The system prompt that names and describes a role, for models that have no other way to know it."""
    return f"You are {role}. {profiles.get(role, '')}".strip()


def persona(role, config):
    """`persona_of` a role of a run (config: its config.json), or None where the run's prompts do not name the role."""
    return persona_of(role, config["profiles"]) if config["role_in_prompt"] else None


# ------------------------------------------------------------------------------------------------ training examples
@dataclass(frozen=True)
class Example:
    """One training example: ids = prompt + response + stop; the first prompt_len of them are not supervised."""
    ids: list[int]
    prompt_len: int
    role_id: int
    truncated: bool = False      # at max_length, so that the stop token is missing
    sample: int = 0              # the index of the sample that it is an answer of


def encode_examples(samples, roles, tokenizer, max_length, profiles=None):
    """Examples of samples, one per answer. roles: {name: id}; profiles: {name: description} to put in the prompt.

    An example longer than max_length loses its end, as in the authors' code; one whose prompt alone fills it is
    dropped. Returns (examples, number truncated, number dropped). Raises ValueError for an unknown role or when no
    example is left.
    """
    examples = []
    dropped = 0
    answers = iter(tokenizer.encode_batch([answer for s in samples for answer in s.answers]))

    for n, s in enumerate(tqdm(samples, desc="tokenising", leave=False, disable=len(samples) < 5000)):
        role = role_id(s.role, roles)
        persona = persona_of(s.role, profiles) if profiles is not None else None
        prompt = tokenizer.prompt(s.question, persona)
        for _ in s.answers:
            ids = prompt + next(answers) + [tokenizer.stop_id]
            if len(prompt) >= max_length:
                dropped += 1
                continue
            examples.append(Example(ids[:max_length], len(prompt), role, len(ids) > max_length, n))

    if not examples:
        raise ValueError(f"no training example is left: {len(samples)} samples, max_length {max_length}")
    truncated = sum(example.truncated for example in examples)
    return examples, truncated, dropped


# ---------------------------------------------------------------------------------------------------------- batches
@dataclass
class Batch:
    """What `collate` makes. Positions are flat, b * T + t, and known on the host, so that no step waits for a count."""
    input_ids: torch.Tensor      # (B, T)
    labels: torch.Tensor         # (B, T)  the token itself where it is supervised, else -100; stays on the CPU
    role_ids: torch.Tensor       # (B,)    stays on the CPU: its distinct values are found there
    positions: torch.Tensor      # (N,)    positions whose next token is supervised
    targets: torch.Tensor        # (N,)    those next tokens
    pooled: torch.Tensor         # (P,)    positions that represent a response in Eq. 5 ...
    pooled_rows: torch.Tensor    # (P,)    ... and the row of the batch that each belongs to

    def to(self, device):
        """The tensors that the step reads on `device`; to a GPU from pinned memory, so that the host does not wait."""
        moved = {}
        for name in ("input_ids", "positions", "targets", "pooled", "pooled_rows"):
            tensor = getattr(self, name)
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            moved[name] = tensor.to(device, non_blocking=True)
        return Batch(labels=self.labels, role_ids=self.role_ids, **moved)


def collate(examples, pad_id, pool="last"):
    """Examples to a Batch, padded on the right. pool: see `pooled_span`."""
    B = len(examples)
    T = max(len(example.ids) for example in examples)
    input_ids = torch.full((B, T), pad_id)
    labels = torch.full((B, T), IGNORE)
    pooled = []
    pooled_rows = []

    for b, example in enumerate(examples):
        n = len(example.ids)
        input_ids[b, :n] = torch.tensor(example.ids)
        labels[b, example.prompt_len:n] = input_ids[b, example.prompt_len:n]

        span = pooled_span(example, pool)
        pooled += [b * T + t for t in span]
        pooled_rows += [b] * len(span)

    # the hidden state at position t predicts the token at t + 1
    next_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE).flatten()   # (B * T,)
    positions = (next_labels != IGNORE).nonzero().squeeze(1)             # (N,)
    targets = next_labels[positions]

    role_ids = torch.tensor([example.role_id for example in examples])
    return Batch(input_ids, labels, role_ids, positions, targets, torch.tensor(pooled), torch.tensor(pooled_rows))


def pooled_span(example, pool):
    """Which tokens of an example represent its response in Eq. 5: its "last" (the stop token), the one "before_eos",
    or the "mean" of all tokens of the response."""
    n = len(example.ids)
    if pool == "mean":
        return range(example.prompt_len, n)
    chosen = n - 1
    if pool == "before_eos" and not example.truncated:
        chosen = max(n - 2, example.prompt_len)
    return range(chosen, chosen + 1)


def batch_order(examples, batch_size, seed, epoch, one_answer=False, balance_roles=False):
    """Index lists of one epoch's batches: shuffled, yet of similar lengths within a batch, so that little is padding.

    one_answer: only one example of each sample, drawn anew every epoch. balance_roles: see `balanced_batches`.
    The order depends on the arguments alone: that is all a resumed run needs to go on in mid-epoch.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(examples)))
    rng.shuffle(order)
    if one_answer:
        order = list({examples[i].sample: i for i in order}.values())    # the last of a sample's examples

    if balance_roles:
        batches = balanced_batches(order, examples, batch_size, rng)
    else:
        batches = batches_of_similar_length(order, examples, batch_size)
    rng.shuffle(batches)
    return batches


def batches_of_similar_length(order, examples, batch_size):
    """Batches cut from pools of 32 batches' examples, each pool sorted by length, alternately up and down."""
    batches = []
    pool_size = 32 * batch_size
    for n, start in enumerate(range(0, len(order), pool_size)):
        pool = sorted(order[start:start + pool_size], key=lambda i: len(examples[i].ids), reverse=n % 2 == 1)
        batches += [pool[i:i + batch_size] for i in range(0, len(pool), batch_size)]
    return batches


def balanced_batches(order, examples, batch_size, rng, per_role=2):
    """Batches of P roles with K = `per_role` examples each, so that Eq. 7 has positives and negatives in every batch.

    P is batch_size // K. Each batch takes the roles that have most examples left and, of each, those whose lengths are
    nearest to that of one random example. What is left when fewer than two roles have K examples is not used in this
    epoch. Raises ValueError where no batch can be made.
    """
    def length(i):
        return len(examples[i].ids)

    queues = {}                                                          # {role: its examples by length}
    for i in sorted(order, key=lambda i: (examples[i].role_id, length(i))):
        queues.setdefault(examples[i].role_id, []).append(i)

    batches = []
    while batch_size >= 2 * per_role:
        ready = [queue for queue in queues.values() if len(queue) >= per_role]
        if len(ready) < 2:
            break
        ready.sort(key=len, reverse=True)
        target = length(rng.choice(ready[0]))
        batch = []
        for queue in ready[:batch_size // per_role]:
            start = bisect_left(queue, target, key=length) - per_role // 2
            start = min(max(start, 0), len(queue) - per_role)
            batch += queue[start:start + per_role]
            del queue[start:start + per_role]
        batches.append(batch)

    if not batches:
        raise ValueError(f"balance_roles needs batches of at least {2 * per_role} and two roles with {per_role} "
                         f"examples each; here batch_size is {batch_size}, with {len(queues)} roles")
    return batches


def padding_share(examples, batches):
    """The part of all tokens in these batches that is padding."""
    tokens = 0
    padded = 0
    for batch in batches:
        lengths = [len(examples[i].ids) for i in batch]
        tokens += sum(lengths)
        padded += len(batch) * max(lengths)
    return 1 - tokens / padded
