"""tools.resplit: a test without leaks from RoleBench's layout."""
import json

import pytest
from conftest import ROOT, command, write_rolebench

from data import load_rolebench
from selection import similar_pairs, trigrams

TOPICS = "sea ship wind stone river bread lamp door night horse glass wheel cloud sword garden letter market bridge candle winter".split()


def leaky(root, split, ask):
    """RoleBench lines whose test repeats training: the same questions, nearly the same ones, the same under another role."""
    train = [(role, ask(role, topic), [f"{role} on {topic}", "shared"]) for role in "ABC" for topic in TOPICS]
    test = [(role, question + " ", [answers[0], "another"]) for role, question, answers in train[::4]]
    test += [("A", ask("A", topic).replace("?", ", please?"), ["again"]) for topic in TOPICS[:5]]
    for part, lines in (("train", train), ("test", test)):
        write_rolebench(root, lines, split=split, part=part)
    return train


@pytest.mark.parametrize("split, ask", [
    ("general", lambda role, topic: f"Is a {topic} like my {topic}, or which {topic} is the best {topic} of all?"),
    ("role_specific", lambda role, topic: f"Dear {role}, is a {topic} like my {topic}, or which {topic} is the best {topic} of all?")])
def test_what_is_nearly_the_same_is_on_one_side(tmp_path, split, ask):
    lines = leaky(tmp_path / "data", split, ask)
    write_rolebench(tmp_path / "data", [(role, question, ["RoleGPT's"]) for role, question, _ in lines], split=split, part="rolegpt_baseline")
    (tmp_path / "data/profiles-eng").mkdir()
    (tmp_path / "data/profiles-eng/desc.json").write_text('{"A": "the first"}')
    done = command("tools.resplit", "--data", tmp_path / "data", "--out", tmp_path / "new", "--share", "0.25")
    train, test = (load_rolebench(tmp_path / "new", "en", part) for part in ("train", "test"))

    everything = {(role, question.strip()) for role, question, _ in lines} | {("A", ask("A", topic).replace("?", ", please?")) for topic in TOPICS[:5]}
    assert {(s.role, s.question) for s in train + test} == everything and len(train + test) == len(everything)
    assert len(test) == pytest.approx(0.25 * len(everything), abs=6) and {s.role for s in train} == {s.role for s in test} == set("ABC")
    for role in "ABC" if split == "role_specific" else [None]:
        parts = [[trigrams(s.question) for s in part if role in (s.role, None)] for part in (train, test)]
        border = len(parts[0])
        assert not [pair for pair in similar_pairs(parts[0] + parts[1]) if min(pair) < border <= max(pair)]

    answers = {(s.role, s.question): s.answers for s in train + test}                    # of both files, none twice
    assert answers["A", lines[0][1]] == ("A on sea", "shared", "another")
    gpt = load_rolebench(tmp_path / "new", "en", "rolegpt_baseline")
    assert {(s.role, s.question) for s in gpt} == {(s.role, s.question) for s in test} & {(role, question) for role, question, _ in lines}
    assert json.loads((tmp_path / "new/profiles-eng/desc.json").read_text()) == {"A": "the first"}

    again = command("tools.resplit", "--data", tmp_path / "data", "--out", tmp_path / "again", "--share", "0.25")
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0] and f"{len(test)} for the test" in done.stdout
    assert load_rolebench(tmp_path / "again", "en", "test") == test


def test_it_refuses_in_one_line_and_overwrites_nothing(tmp_path):
    leaky(tmp_path / "data", "general", lambda role, topic: f"{topic}?")
    for args, message in ((["--data", tmp_path, "--out", tmp_path / "x"], "no folder in RoleBench's layout"),
                          (["--data", tmp_path / "data", "--out", tmp_path / "data"], "nothing is overwritten"),
                          (["--data", tmp_path / "data", "--out", tmp_path / "x", "--share", "1"], "between 0 and 1")):
        done = command("tools.resplit", *args, ok=False)
        assert message in done.stderr and len(done.stderr.splitlines()) == 1
    write_rolebench(tmp_path / "empty", [], split="general")
    assert "train.jsonl has no line" in command("tools.resplit", "--data", tmp_path / "empty", "--out", tmp_path / "x", ok=False).stderr
    done = command("tools.resplit", "--data", ROOT / "tiny/rolebench", "--out", tmp_path / "x", ok=False)
    assert "lines with facts, kinds or histories would lose them here" in done.stderr
    assert not (tmp_path / "x").exists()
