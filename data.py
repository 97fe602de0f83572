"""RoleBench, read and tokenised.

A line of RoleBench is one question to one role, with one or more answers: a Sample. Each of its answers becomes a
training Example: the tokens of prompt, response and stop.
"""
import difflib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from files import fetch, parse_json, read_jsonl

SPLITS = ("general", "role_specific")
FOLDERS = {"en": "rolebench-eng/{}-generalization", "zh": "rolebench-zh"}
PROFILES = {"en": "profiles-eng/desc.json", "zh": "profiles-zh/desc.json"}


# ------------------------------------------------------------------------------------------------ reading RoleBench
@dataclass(frozen=True)
class Sample:
    """One question to one role.

    language: "en" or "zh", which decides how the metrics cut words. facts: words of which an answer has to contain one
    to be right, where the data say so; kind: the kind of knowledge that the question asks for, if the data name kinds.
    """
    split: str
    role: str
    question: str
    answers: tuple[str, ...]
    language: str
    facts: tuple[str, ...] = ()
    kind: str = ""


def parse_line(record, split, language, place):
    """The Sample of a line {"role", "question", "generated": [answer, ...]}, texts stripped.

    A line may also have "fact", the words that make an answer right or a list of alternatives, and "kind".

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

    facts = record.get("fact", [])
    if isinstance(facts, str):
        facts = [facts]
    if not (isinstance(facts, list) and all(isinstance(fact, str) and fact.strip() for fact in facts)):
        raise ValueError(f'{place}: "fact" has to be a text or a list of texts')
    kind = record.get("kind", "")
    if not isinstance(kind, str):
        raise ValueError(f'{place}: "kind" is not text')
    return Sample(split, role, question, answers, language, tuple(facts), kind)


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
