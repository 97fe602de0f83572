"""Checks data before training: broken lines, roles, lengths, duplicates, leaks.

    python -m tools.check_data DIR_OR_JSONL [--language zh] [--tokenizer FOLDER_OR_ID] [--generalization role]

A leak is a test line that also occurs in the training data: with the same role, question and answer; with the same role
and question; or with the same question under another role. RoleBench's own split has all three. Exit code 1 if a line
is broken.
"""
from console import Parser, counted, one_line_errors, pad

import sys
from collections import Counter

import numpy as np

from data import OWN, SPLITS, fetch_data, languages, load_own, load_profiles, parse_line, rolebench_files
from files import TOKENIZER_FILES, fetch, parse_json
from prepare import describe_data
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
        try:
            samples = load_own(root, language, part)
        except ValueError as e:
            if part == "train" and not broken:                           # what no line is to blame for by itself
                broken.append(str(e))
    return samples, broken


def leaks(train, test):
    """How many test samples share with training (role, question, an answer), (role, question), (question, other role).

    A line counts once, under the first of these that holds."""
    answered = {(s.role, s.question, answer) for s in train for answer in s.answers}
    asked = {(s.role, s.question) for s in train}
    questions = {s.question for s in train}

    counts = [0, 0, 0]
    for s in test:
        if any((s.role, s.question, answer) in answered for answer in s.answers):
            counts[0] += 1
        elif (s.role, s.question) in asked:
            counts[1] += 1
        elif s.question in questions:
            counts[2] += 1
    return counts


def describe(name, samples, tokenizer):
    """Lines of text about the samples of one split of one part. Lengths are in tokens, or in characters without a
    tokenizer."""
    questions = [s.question for s in samples]
    answers = [answer for s in samples for answer in s.answers]
    roles = {s.role for s in samples}
    yield (f"{name}: {counted(len(samples), 'line')}, {counted(len(set(questions)), 'question')}, "
           f"{counted(len(answers), 'answer')}, {counted(len(roles), 'role')}")

    repeated_lines = len(samples) - len({(s.role, s.question) for s in samples})
    repeated_answers = len(answers) - len({(s.role, s.question, answer) for s in samples for answer in s.answers})
    yield (f"  duplicates: {repeated_lines} lines repeat a role and question, {repeated_answers} answers "
           f"repeat one of the same role and question")

    unit = "tokens" if tokenizer else "characters"
    for what, texts in (("questions", questions), ("answers", answers)):
        lengths = [len(text) for text in (tokenizer.encode_batch(texts) if tokenizer else texts)]
        low, mid, high, top = np.percentile(lengths, (5, 50, 95, 100)).astype(int)
        yield f"  {what}: {low} to {high} {unit} (5 % and 95 %), median {mid}, longest {top}"


def check(root, language, tokenizer=None, generalization="instruction"):
    """(lines of text, number of broken lines) about one language of a data folder."""
    train, broken = read(root, language, "train", generalization)
    test, more = read(root, language, "test", generalization)
    broken += more

    # what training would say first
    out = [f"--- {language}"]
    if not broken:
        out += describe_data(root, train, language, generalization=generalization)

    # split by split
    counts = {}                                                          # {split and part: lines per role}
    for split in (*SPLITS, OWN):
        for part, samples in (("train", train), ("test", test)):
            chosen = [s for s in samples if s.split == split]
            if not chosen:
                continue
            out += describe(f"{split} {part}", chosen, tokenizer)
            if part == "test":
                same, asked, elsewhere = leaks(train, chosen)
                out.append(f"  leaks: {same} of {len(chosen)} with role, question and an answer in train, {asked} more "
                           f"with role and question, {elsewhere} more with the question under another role")
            counts[f"{split} {part}"] = Counter(s.role for s in chosen)

    # role by role
    profiles = load_profiles(root, language)
    out.append(pad("lines per role", 28) + "".join(pad(title, 22) for title in counts))
    for role in dict.fromkeys(s.role for s in train + test):
        cells = "".join(pad(str(count[role]), 22) for count in counts.values())
        remark = "" if role in profiles else "no description in the profiles"
        out.append((pad(role, 28) + cells + remark).rstrip())
    return out + broken, len(broken)


@one_line_errors("tools.check_data")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a JSONL file, or a folder in RoleBench's layout, or its hub id")
    parser.add_argument("--language", default="all", choices=("en", "zh", "all", "other"),
                        help="other: for a JSONL file alone")
    parser.add_argument("--generalization", choices=("instruction", "role"), default="instruction")
    parser.add_argument("--tokenizer", help="a model's folder or hub id: lengths in its tokens")
    args = parser.parse_args()
    root, broken = fetch_data(args.data), 0
    tokenizer = Tokenizer(fetch(args.tokenizer, TOKENIZER_FILES), "plain") if args.tokenizer else None
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
        sys.exit(f"tools.check_data: {counted(broken, 'broken line')}, listed above")


if __name__ == "__main__":
    main()
