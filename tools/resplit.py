"""RoleBench split anew, so that no test question, nor a near-identical one, is in the training data.

    python -m tools.resplit --data ZenMoore/RoleBench --out rolebench-resplit [--share 0.14]

RoleBench's own split leaks (python -m tools.check_data). Here its train and test lines are pooled, one line per role
and question with all its distinct answers; near-identical questions are grouped (selection.py), and each group goes to
one side as a whole, in the order of a hash of its questions: the same lines for everybody. In `general`, where all
roles are asked the same, a question is grouped over all roles, so it is in the test for all of them or for none; a
role-specific one within its role. Profiles are taken over, and of RoleGPT's answers those to questions of the new test.
English is RoleBench's instruction generalization.
"""
from console import Parser, counted, one_line_errors

from collections import Counter

from data import FOLDERS, PROFILES, SPLITS, Sample, fetch_data, load_profiles, load_rolebench, rolebench_files
from files import new_folder_at, write_json, write_jsonl
from selection import hold_out


def pooled(samples):
    """One sample to a role and question, in the order of the first of each, with all the distinct answers."""
    answers = {}
    for s in samples:
        answers.setdefault((s.role, s.question), {}).update(dict.fromkeys(s.answers))
    first = samples[0]
    return [Sample(first.split, role, question, tuple(found), first.language)
            for (role, question), found in answers.items()]


def split_anew(samples, share):
    """(train, test) of pooled samples of one split of one language; the test is about `share` of the lines."""
    by_role = {}
    for i, s in enumerate(samples):
        key = s.role if s.split == "role_specific" else "all"
        by_role.setdefault(key, []).append(i)

    held = set()
    for indices in by_role.values():
        held |= {indices[i] for i in hold_out([samples[i] for i in indices], share)}
    train = [s for i, s in enumerate(samples) if i not in held]
    return train, [s for i, s in enumerate(samples) if i in held]


def records(samples):
    """Samples as lines of RoleBench's files."""
    return [{"role": s.role, "question": s.question, "generated": list(s.answers)} for s in samples]


def resplit(root, out, share):
    """Writes the new split of all files of a RoleBench folder below `out`; yields a line about each part."""
    for language in FOLDERS:
        found = rolebench_files(root, language, "train")
        for split in found:
            parts = [part for part in ("train", "test") if split in rolebench_files(root, language, part)]
            samples = [s for part in parts for s in load_rolebench(root, language, part, (split,))]
            if not samples:
                raise ValueError(f"{found[split]} has no line")
            if any(s.facts or s.kind or s.history for s in samples):
                raise ValueError(f"{found[split].parent}: lines with facts, kinds or histories would lose them here")
            train, test = split_anew(pooled(samples), share)
            folder = out / FOLDERS[language].format("instruction") / split
            folder.mkdir(parents=True)
            write_jsonl(folder / "train.jsonl", records(train))
            write_jsonl(folder / "test.jsonl", records(test))
            yield describe(language, split, train, test)

            if split in rolebench_files(root, language, "rolegpt_baseline"):
                asked = {(s.role, s.question) for s in test}
                answers = load_rolebench(root, language, "rolegpt_baseline", (split,))
                answers = [s for s in answers if (s.role, s.question) in asked]
                write_jsonl(folder / "rolegpt_baseline.jsonl", records(answers))
                yield f"  RoleGPT has answered {len(answers)} of the test lines"

        profiles = load_profiles(root, language)
        if found and profiles:
            (out / PROFILES[language]).parent.mkdir(parents=True)
            write_json(out / PROFILES[language], profiles)


def describe(language, split, train, test):
    """A line about one part of the new split."""
    of_role = Counter(s.role for s in train)
    questions = [len({s.question for s in part}) for part in (train, test)]
    return (f"{language} {split}, {counted(len(of_role), 'role')}: {len(train)} lines for training ({questions[0]} "
            f"questions, {min(of_role.values())} to {max(of_role.values())} lines a role), {len(test)} for the test "
            f"({questions[1]} questions)")


@one_line_errors("tools.resplit")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="a folder in RoleBench's layout, or its hub id")
    parser.add_argument("--out", required=True, help="a new folder, in the same layout")
    parser.add_argument("--share", type=float, default=0.14, help="of the lines, for the test")
    args = parser.parse_args()
    if not 0 < args.share < 1:
        raise ValueError("--share has to be between 0 and 1")
    root = fetch_data(args.data)
    if root.is_file() or not any(rolebench_files(root, language, "train", SPLITS) for language in FOLDERS):
        raise ValueError(f"{root} is no folder in RoleBench's layout")
    with new_folder_at(args.out) as folder:
        for line in resplit(root, folder, args.share):
            print(line, flush=True)
    print(f"wrote {args.out}; look at it with: python -m tools.check_data {args.out}")


if __name__ == "__main__":
    main()
