"""tools.voice: a classifier of roles, beside its ceiling, the question alone and chance."""
import json
import random

import pytest
from conftest import command, write_rolebench

from data import Sample
from files import write_jsonl
from tools import gather, tables
from tools import voice as module
from tools.voice import spread, voices

pytest.importorskip("sklearn")
WORDS = "sea ship wind stone river bread lamp door night horse".split()
VOICES = {"Pirate": "arr matey {}!", "Robot": "beep. {} computed.", "Poet": "o gentle {}, thou"}


def line(role, topic, split="general", question=None):
    return Sample(split, role, question or f"What of the {topic}?", (VOICES[role].format(topic),), "en")


def predictions_of(samples, answer_as=None):
    return [{"split": s.split, "language": "en", "role": s.role, "question": s.question, "references": list(s.answers),
             "answer": VOICES[answer_as or s.role].format(random.choice(WORDS))} for s in samples]


def test_voices_are_told_apart_where_there_are_any():
    """Three clear voices: named right in character, and as the pirate where all answer as one. Only one split's questions say who is asked."""
    train = [line(role, f"{a} {b}") for role in VOICES for a in WORDS[:8] for b in WORDS[:4]]
    train += [line(role, f"{a} {b}", "role_specific", f"{role}, what of the {a}?") for role in VOICES for a in WORDS[:8] for b in WORDS[:4]]
    test = [line(role, a) for role in VOICES for a in WORDS] + [line(role, a, "role_specific", f"{role}, is there {a}?") for role in VOICES for a in WORDS]
    test += [line("Pirate", "tide")]
    rows = voices(train, {"good": predictions_of(test), "flat": predictions_of(test, "Pirate")})
    found = {(row["split"], row["text"]): row["accuracy"] for row in rows}
    assert list(found)[:6] == [("general", text) for text in ("good", "flat", "ceiling", "question", "question, known", "chance")]
    assert found["general", "good"] == found["general", "ceiling"] == 100
    assert found["general", "flat"] == pytest.approx(100 * 11 / 31) == found["general", "chance"]
    assert found["role_specific", "question, known"] == 100 and found["general", "question, known"] < 60
    right = {row["text"]: row["right"] for row in rows if row["split"] == "general"}
    pirates = [role == "Pirate" for role, _ in sorted((s.role, s.question) for s in test if s.split == "general")]
    assert right["flat"] == [100.0 * pirate for pirate in pirates] and set(right["good"]) == {100.0} and right["chance"] is None
    low, high = next(row["interval"] for row in rows if row["text"] == "flat")
    assert low < found["general", "flat"] < high


def test_how_much_more_often_the_role_is_named(tmp_path, monkeypatch):
    """Against the first variant, by seed and line, whatever the order of a file. hycora and the backbone answer as the pirate, lora in character (seed 1, which hycora has too) or as the pirate (seed 3)."""
    train = [line(role, f"{a} {b}") for role in VOICES for a in WORDS[:8] for b in WORDS[:4]]
    test = [line(role, a) for role in VOICES for a in WORDS]
    monkeypatch.setattr(gather, "every_training_line", lambda run: train)
    folders = {name: [tmp_path / name / seed for seed in seeds] for name, seeds in (("hycora", "12"), ("lora", "13"))}
    for name, runs in folders.items():
        for run in runs:
            run.mkdir(parents=True)
            answers = predictions_of(test, "Pirate") if name == "hycora" or run.name == "3" else predictions_of(test)[::-1]
            write_jsonl(run / "predictions.jsonl", answers)
    shots = tmp_path / "backbone-4-shots.jsonl"
    write_jsonl(shots, predictions_of(test, "Pirate")[::-1])             # in another order: the same line by line
    rows = {row["text"]: row for row in gather.named_from(folders, [shots])}
    third = 100 / 3
    assert rows["lora"]["accuracy"]["mean"] == pytest.approx((100 + third) / 2) and "minus" not in rows["hycora"] and "minus" not in rows["ceiling"]
    assert (rows["lora"]["minus"], rows["lora"]["difference"]) == ("hycora", pytest.approx(100 - third))        # on seed 1, which both have
    assert (rows["backbone-4-shots"]["difference"], *rows["backbone-4-shots"]["interval"]) == pytest.approx((0, 0, 0))
    low, high = rows["lora"]["interval"]
    assert 0 < low < 100 - third < high < 100
    table = tables.named_from_difference_table(list(rows.values()))
    assert [row[0] for row in table] == ["difference, 95 % interval", "lora - hycora", "backbone-4-shots - hycora"] and table[1][1].endswith("*")


def test_a_split_of_one_role_is_left_out_and_unknown_roles_too():
    train = [line(role, a) for role in ("Pirate", "Robot") for a in WORDS] + [line("Poet", a, "role_specific") for a in WORDS]
    test = [line(role, a) for role in VOICES for a in WORDS] + [line("Poet", a, "role_specific") for a in WORDS]
    rows = voices(train, {"run": predictions_of(test)})
    assert {(row["split"], row["n"], row["roles"]) for row in rows} == {("general", 20, 2)}
    assert spread(list(range(10)), 4) == [0, 2, 5, 7] and spread([1, 2], 4) == [1, 2]


def test_too_few_lines_for_a_classifier_are_said():
    train = [Sample("general", role, "q", (answer,), "en") for role, answer in (("A", "x"), ("B", "y"))]
    with pytest.raises(ValueError, match="2 texts of training are too few for a classifier"):
        voices(train, {"run": [{"split": "general", "language": "en", "role": s.role, "question": "q", "references": ["x"], "answer": "x"} for s in train]})


def test_the_command_reads_a_run(tmp_path, monkeypatch):
    lines = [(role, f"What of the {a}?", [VOICES[role].format(a)]) for role in VOICES for a in WORDS]
    for part, some in (("train", lines), ("test", lines[::3])):
        write_rolebench(tmp_path / "data", some, part=part)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"model": "m", "data": str(tmp_path / "data"), "language": "en", "splits": ["role_specific"]}))
    (run / "roles.json").write_text(json.dumps({role: i for i, role in enumerate(VOICES)}))
    assert "has no predictions.jsonl" in command("tools.voice", "--runs", run, ok=False).stderr
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert "pip install scikit-learn" in command("tools.voice", "--runs", run, ok=False).stderr
    monkeypatch.undo()

    answered = [{"split": "role_specific", "role": r, "question": q, "references": a, "answer": a[0]} for r, q, a in lines[::3]]
    write_jsonl(run / "predictions.jsonl", answered)
    done = command("tools.voice", "--runs", run)
    assert "role named from" in done.stdout and "100.0 [100.0, 100.0]" in done.stdout and "chance" in done.stdout
    assert len(json.loads(command("tools.voice", "--runs", run, "--format", "json").stdout)) == 5
