"""RoleBench, or a JSONL file of your own, read and tokenised.

A line is one question to one role, with one or more answers: a Sample. Each of its answers becomes a training Example:
the tokens of prompt, response and stop.
"""
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from files import fetch, local_path, read_json, read_jsonl
from selection import hold_out, is_texts, role_id, subsample

SPLITS = ("general", "role_specific")
OWN = "own"                             # the split name of a JSONL file of your own
FOLDERS = {"en": "rolebench-eng/{}-generalization", "zh": "rolebench-zh"}
PROFILES = {"en": "profiles-eng/desc.json", "zh": "profiles-zh/desc.json"}


# ------------------------------------------------------------------------------------------------ reading RoleBench
@dataclass(frozen=True)
class Sample:
    """One question to one role.

    language: "en", "zh" or "other", which decides how the metrics split text into words. facts: alternatives of
    which a right answer contains one, if the data list them; kind: the kind of knowledge that the question asks for,
    if the data name kinds; history: earlier (question, answer) turns of the conversation, which are in the prompt.
    """
    split: str
    role: str
    question: str
    answers: tuple[str, ...]
    language: str
    facts: tuple[str, ...] = ()
    kind: str = ""
    history: tuple[tuple[str, str], ...] = ()


LINE_KEYS = ("role", "question", "generated", "answer", "history", "fact", "kind", "test", "type")   # RoleBench's type


def parse_line(record, split, language, place):
    """The Sample of a line {"role", "question", "generated": [answer, ...]}, texts stripped.

    "generated" may be called "answer". A line may also have "fact", the words that make an answer right or a list of
    alternatives, "kind", and "history", a list of [question, answer].
    ValueError names the place and says what the line lacks.
    """
    answers = as_list(record.get("generated", record.get("answer")))
    history = record.get("history") or []
    facts = as_list(record.get("fact", []))
    kind = record.get("kind", "")
    is_right = {
        '"role" is missing or not text': isinstance(record.get("role"), str),
        '"question" is missing or not text': isinstance(record.get("question"), str),
        '"generated" (or "answer") is missing or not text': is_texts(answers),
        '"history" is not a list of [question, answer]':
            isinstance(history, list) and all(is_texts(turn) and len(turn) == 2 for turn in history),
        '"fact" has to be a text or a list of texts': is_texts(facts) and all(fact.strip() for fact in facts),
        '"kind" is not text': isinstance(kind, str),
    }
    for complaint, ok in is_right.items():
        if not ok:
            raise ValueError(f"{place}: {complaint}")

    role = record["role"].strip()
    question = record["question"].strip()
    answers = tuple(answer.strip() for answer in answers)
    history = tuple((asked.strip(), answered.strip()) for asked, answered in history)
    empty = {"role": not role, "question": not question, "answer": not answers or not all(answers),
             "turn in the history": not all(text for turn in history for text in turn)}
    for what, is_empty in empty.items():
        if is_empty:
            raise ValueError(f"{place}: empty {what}; fill it in or delete the line")
    return Sample(split, role, question, answers, language, tuple(facts), kind, history)


def as_list(value):
    """A string as a list of one; anything else unchanged."""
    return [value] if isinstance(value, str) else value


def languages(language):
    """("en",), ("zh",) or, for "all", both."""
    if language not in (*FOLDERS, "all"):
        raise ValueError(f"language is {language!r}: RoleBench has en, zh or all; \"other\" is for a JSONL file")
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
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"RoleBench has no split {split!r}; choose {' or '.join(SPLITS)}")

    samples = []
    for lang in languages(language):
        files = rolebench_files(root, lang, part, splits, generalization)
        if not files:
            layout = f"{FOLDERS[lang].format(generalization)}/*/{part}.jsonl"
            advice = "; --score-limit 0 trains without test lines" if part == "test" else ""
            raise FileNotFoundError(f"{root} has no {layout}: --data takes a JSONL file, or a folder in RoleBench's "
                                    f"layout (or its hub id), --language one of its languages; python -m "
                                    f"tools.convert brings other files into these forms{advice}")
        for split, path in files.items():
            samples += [parse_line(record, split, lang, place) for place, record in read_jsonl(path)]
    return samples


# ----------------------------------------------------------------------------------------------- a person's own file
def load_own(path, language, part):
    """Samples of `part` of a JSONL file with lines for `parse_line`.

    Lines with "test": true are the test. Where no line has it, about a tenth is held out (selection.hold_out), the same
    lines on every call. ValueError for a broken line, FileNotFoundError for no line at all.
    """
    if language not in (*FOLDERS, "other"):
        raise ValueError(f"--language {language}: the lines of {path} are in one language; choose en, zh, or other "
                         f"(words between spaces)")
    is_test = []
    samples = []
    for place, record in read_jsonl(path):
        if not isinstance(record.get("test", False), bool):
            raise ValueError(f'{place}: "test" is neither true nor false')
        is_test.append(record.get("test", False))
        samples.append(parse_line(record, OWN, language, place))
    if not samples:
        raise FileNotFoundError(f"{path} has no line")

    if not any(is_test):
        held = set(hold_out(samples))
        is_test = [i in held for i in range(len(samples))]
    return [s for s, in_test in zip(samples, is_test) if in_test == (part == "test")]


# ---------------------------------------------------------------------------------------------------- either of them
def load_samples(root, language="all", part="train", splits=SPLITS, generalization="instruction"):
    """Samples of `part` of a data set: a JSONL file (`load_own`) or RoleBench's folder (`load_rolebench`)."""
    if Path(root).is_file():
        if tuple(splits) != SPLITS:
            raise ValueError(f"{root} is a file, whose lines are in no split: leave out --split and --splits")
        return load_own(root, language, part)
    return load_rolebench(root, language, part, splits, generalization)


def load_profiles(root, language="all"):
    """{role: description} of a RoleBench folder, or of NAME.profiles.json beside NAME.jsonl; empty where there is none.

    ValueError for anything but text.
    """
    if Path(root).is_file():
        paths = [Path(root).with_suffix(".profiles.json")]
    else:
        paths = [Path(root) / PROFILES[lang] for lang in languages(language)]
    profiles = {}
    for path in paths:
        if not path.is_file():
            continue
        for role, text in read_json(path).items():
            if not isinstance(text, str):
                raise ValueError(f"{path}: the description of {role} is not text")
            profiles[role] = text
    return profiles


def load_test_samples(data, language, splits=SPLITS, limit=0, generalization="instruction", roles=None):
    """Test samples of a data set, of `splits`; if given, of `roles`, and at most `limit` of each split."""
    samples = load_samples(fetch_data(data), language, "test", splits, generalization)
    return subsample([s for s in samples if roles is None or s.role in roles], limit)


def fetch_data(name):
    """The path of a data set: a JSONL file or a folder that exists, else RoleBench's files from the hub."""
    path = local_path(name)
    if path and path.is_file():
        return path
    if str(name).endswith((".json", ".jsonl")):
        raise FileNotFoundError(f"{name}: no such file")
    patterns = ["rolebench-*/t*.jsonl", "rolebench-*/rolegpt_baseline.jsonl", "profiles-*/desc.json"]
    return fetch(name, patterns, "dataset")


def persona_of(role, profiles):
    """The system prompt that names and describes a role, for models that have no other way to know it."""
    return f"You are {role}. {profiles.get(role, '')}".strip()


def run_persona(role, config):
    """`persona_of` a role of a run (config: its config.json), or None where the run's prompts do not name the role."""
    return persona_of(role, config["profiles"]) if config["role_in_prompt"] else None


# ------------------------------------------------------------------------------------------------ training examples
@dataclass(frozen=True)
class Example:
    """One training example: ids = prompt + response + stop; the first prompt_len of them are not supervised."""
    ids: list[int]
    prompt_len: int
    role_id: int
    truncated: bool = False      # cut at max_length: the stop token is missing
    sample: int = 0              # the index of the sample that it is an answer of


def encode_examples(samples, roles, tokenizer, max_length, profiles=None):
    """Examples of samples, one per answer. roles: {name: id}; profiles: {name: description} to put in the prompt.

    An example longer than max_length loses its end, as in the authors' code; one whose prompt alone fills it is
    dropped. Returns (examples, number truncated, number dropped). Raises ValueError for an unknown role.
    """
    examples = []
    dropped = 0
    answers = iter(tokenizer.encode_batch([answer for s in samples for answer in s.answers]))

    for n, s in enumerate(tqdm(samples, desc="tokenising", leave=False, disable=len(samples) < 5000)):
        role = role_id(s.role, roles)
        persona = persona_of(s.role, profiles) if profiles is not None else None
        prompt = tokenizer.prompt(s.question, persona, s.history)
        for _ in s.answers:
            ids = prompt + next(answers) + [tokenizer.stop_id]
            if len(prompt) >= max_length:
                dropped += 1
                continue
            examples.append(Example(ids[:max_length], len(prompt), role, len(ids) > max_length, n))

    truncated = sum(example.truncated for example in examples)
    return examples, truncated, dropped
