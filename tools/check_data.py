"""Checks data before training: broken lines, roles, lengths, duplicates, leaks.

    python -m tools.check_data DIR_OR_JSONL [--language zh] [--tokenizer FOLDER_OR_ID] [--generalization role]

A leak is a test line that training gives away: it has the same role, question and answer; or the same role and
question; or the same question under another role. RoleBench's own split has all three. Exit code 1 if a line is broken.
"""
from console import Parser, one_line_errors, pad

import sys
from collections import Counter
from contextlib import suppress

import numpy as np

from data import OWN, SPLITS, fetch_data, languages, load_own, load_profiles, parse_line, rolebench_files
from files import fetch_model, parse_json
from tokenizer import Tokenizer


def read(root, language, part, generalization="instruction"):
    """([Sample], [what is wrong with a broken line]) of one part of a data folder, or of a JSONL file."""
    samples, broken = [], []
    if root.is_file():
        files = {OWN: root} if part == "train" else {}                   # a broken line is named once
    else:
        files = rolebench_files(root, language, part, generalization=generalization)
    for split, path in files.items():
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            place = f"{path}:{number}"
            try:
                if line.strip():
                    samples.append(parse_line(parse_json(line, place), split, language, place))
            except ValueError as e:
                broken.append(str(e))
    if root.is_file():
        with suppress(ValueError):                                       # of a broken line, named with the train part
            samples = load_own(root, language, part)
    return samples, broken


def leaks(train, test):
    """How many test samples share with training (role, question, an answer), (role, question), (question, other role).

    A line counts once, under the first of these that holds."""
    answered = {(s.role, s.question, a) for s in train for a in s.answers}
    asked, questions = {(s.role, s.question) for s in train}, {s.question for s in train}
    kinds = Counter("answer" if any((s.role, s.question, a) in answered for a in s.answers) else
                    "question" if (s.role, s.question) in asked else "elsewhere" if s.question in questions else None
                    for s in test)
    return [kinds[k] for k in ("answer", "question", "elsewhere")]


def lengths(samples, tokenizer):
    """(unit, lengths of questions, lengths of answers): tokens, or characters where there is no tokenizer."""
    texts = [s.question for s in samples], [a for s in samples for a in s.answers]
    if tokenizer is None:
        return "characters", *(list(map(len, t)) for t in texts)
    return "tokens", *([len(ids) for ids in tokenizer.encode_batch(t)] for t in texts)


def describe(name, samples, tokenizer):
    """Lines of text about the samples of one split of one part."""
    answers = [(s.role, s.question, a) for s in samples for a in s.answers]
    repeated = len(samples) - len({(s.role, s.question) for s in samples})
    yield (f"{name}: {len(samples)} lines, {len({s.question for s in samples})} questions, {len(answers)} answers, "
           f"{len({s.role for s in samples})} roles")
    yield (f"  duplicates: {repeated} lines repeat a role and question, {len(answers) - len(set(answers))} answers "
           f"repeat one of the same role and question")
    unit, *both = lengths(samples, tokenizer)
    for what, values in zip(("questions", "answers"), both):
        low, mid, high, top = np.percentile(values, (5, 50, 95, 100)).astype(int)
        yield f"  {what}: {low} to {high} {unit} (5 % and 95 %), median {mid}, longest {top}"


def check(root, language, tokenizer=None, generalization="instruction"):
    """(lines of text, number of broken lines) about one language of a data folder."""
    (train, bad), (test, worse) = (read(root, language, part, generalization) for part in ("train", "test"))
    out, profiles = [f"--- {language}"], load_profiles(root, language)
    parts = [(split, part, [s for s in of if s.split == split])
             for split in dict.fromkeys((*SPLITS, OWN, "both")) for part, of in (("train", train), ("test", test))]
    for split, part, of in parts:
        out += describe(f"{split} {part}", of, tokenizer) if of else []
        if of and part == "test":
            same, asked, elsewhere = leaks(train, of)
            out.append(f"  leaks: {same} of {len(of)} with role, question and an answer in train, {asked} more with "
                       f"role and question, {elsewhere} more with the question under another role")
    counts = {(split, part): Counter(s.role for s in of) for split, part, of in parts if of}
    out.append(pad("lines per role", 28) + "".join(pad(f"{split} {part}", 22) for split, part in counts))
    for role in dict.fromkeys(s.role for s in train + test):
        cells = "".join(pad(str(c[role]), 22) for c in counts.values())
        out.append((pad(role, 28) + cells + ("" if role in profiles else "no description in the profiles")).rstrip())
    return out + bad + worse, len(bad + worse)


@one_line_errors("tools.check_data")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a JSONL file, or a folder in RoleBench's layout, or its hub id")
    parser.add_argument("--language", default="all", help="en, zh or all; for a JSONL file also other")
    parser.add_argument("--generalization", choices=("instruction", "role"), default="instruction")
    parser.add_argument("--tokenizer", help="a model's folder or hub id: lengths in its tokens")
    args = parser.parse_args()
    root, broken = fetch_data(args.data), 0
    tokenizer = Tokenizer(fetch_model(args.tokenizer), "plain") if args.tokenizer else None
    found = []
    if root.is_file():
        found = ["en" if args.language == "all" else args.language]
    for lang in languages(args.language) if root.is_dir() else ():
        if any(rolebench_files(root, lang, part, SPLITS, args.generalization) for part in ("train", "test")):
            found.append(lang)
    if not found:
        raise ValueError(f"{root} has no file in RoleBench's layout for --language {args.language}")
    for lang in found:
        lines, n = check(root, lang, tokenizer, args.generalization)
        print("\n".join(lines))
        broken += n
    if broken:
        sys.exit(f"tools.check_data: {broken} broken line{'s' * (broken > 1)}, listed above")


if __name__ == "__main__":
    main()
