"""The authors' preprocessed files, converted to RoleBench's layout; `python -m tools.convert --data FOLDER` calls it.

FOLDER holds the files that the authors' scripts preprocess RoleBench into:
    role_bench_LANG_*train*.json   lines {"role", "conversation": [{"human", "assistant"}]}
    role_bench_LANG_*test*.json    lines {"role", "instruction", "input", "output": one answer or a list}
    roles_desc_LANG.json           {role: description}
LANG is en or zh. A file's split is in its name ("general", "specific"); one that names no split is taken as general.
"""
from pathlib import Path

from data import FOLDERS, PROFILES, SPLITS, parse_line
from files import new_folder_at, read_json, read_jsonl, write_json, write_jsonl


def question_and_answers(record, place):
    """What is asked and answered in a line of the authors' files. ValueError unless it is one exchange."""
    if "conversation" not in record:
        return record.get("input"), record.get("output")                 # "instruction" repeats the role's description
    turns = record["conversation"]
    if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
        raise ValueError(f'{place}: "conversation" has to be a list of one turn, {{"human", "assistant"}}')
    return turns[0].get("human"), turns[0].get("assistant")


def split_of(path):
    """The split that a file's name says, or None."""
    for split in SPLITS:
        if split.removeprefix("role_") in path.name:
            return split
    return None


def convert_file(path, split, language):
    """Lines of RoleBench of one of the authors' files. ValueError names a line that lacks something."""
    lines = []
    for place, record in read_jsonl(path):
        question, answers = question_and_answers(record, place)
        sample = parse_line({"role": record.get("role"), "question": question, "generated": answers}, split, language,
                            place)
        lines.append({"role": sample.role, "question": sample.question, "generated": list(sample.answers)})
    return lines


def read_files(source):
    """{path in RoleBench's layout: lines, or {role: description}} of the authors' files. FileNotFoundError for none."""
    converted = {}
    for language, folder in FOLDERS.items():
        for part in ("train", "test"):
            for path in sorted(source.glob(f"role_bench_{language}*{part}*.json")):
                if "with_instruction" in path.name:      # the lines of without_instruction, with the role in the prompt
                    continue
                split = split_of(path)
                if split is None:
                    split = SPLITS[0]
                    print(f"{path.name} names no split; all its lines are written as {split}")
                target = f"{folder.format('instruction')}/{split}/{part}.jsonl"
                converted.setdefault(target, []).extend(convert_file(path, split, language))
    if not converted:
        raise FileNotFoundError(f"{source} has no role_bench_LANG*train*.json or role_bench_LANG*test*.json")

    for language, target in PROFILES.items():
        path = source / f"roles_desc_{language}.json"
        if path.is_file():
            converted[target] = read_json(path)
    return converted


def convert(source, out):
    """Writes RoleBench's layout to `out` from the authors' files in `source`; nothing is written if a line is broken.

    Raises FileExistsError if `out` is there and not empty, FileNotFoundError if `source` has none of the files.
    """
    with new_folder_at(out) as folder:
        converted = read_files(Path(source))
        for target, content in converted.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            write = write_jsonl if isinstance(content, list) else write_json
            write(path, content)

    for target, content in converted.items():
        print(f"{len(content):>8} {'lines' if isinstance(content, list) else 'roles'}  {Path(out) / target}")
