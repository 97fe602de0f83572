"""A person's own JSONL file: lines, history, the held-out tenth, and the notices about likely slips."""
import json
import random
import sys
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
from conftest import ROOT, write_rolebench

import eval as evaluation
import selection
import train
from config import pick_device
from data import Sample, encode_examples, fetch_data, load_profiles, load_samples
from files import write_jsonl
from prepare import describe_data, encode, load_data, read_arguments
from selection import choose_roles, group_lines, hold_out, look_alikes, normalise, role_id, similar_pairs, trigrams
from tokenizer import Tokenizer
from tools import check_data

WORDS = "tell sing count draw the your a my first last big stone bridge song toll river name friend winter".split()


def write(path, *lines):
    write_jsonl(path, lines)
    return path


def many(n, roles=("Grum", "Pell")):
    """n different questions, each to one of the roles."""
    rng = random.Random(7)
    questions = {" ".join(rng.sample(WORDS, 6)) for _ in range(2 * n)}
    return [{"role": roles[i % len(roles)], "question": question, "answer": f"{i}."} for i, question in enumerate(sorted(questions)[:n])]


def sample(role, question, answer="a", history=()):
    return Sample("own", role, question, (answer,), "en", history=history)


def test_a_file_is_data(tmp_path):
    path = write(tmp_path / "mine.jsonl",
                 {"role": "Grum", "question": " Who? ", "answer": "Grum. "},
                 {"role": "Grum", "question": "And?", "generated": ["Bridge.", "Toll."], "history": [["Who? ", "Grum."]]},
                 {"role": "Grum", "question": "Why?", "answer": ["Toll."], "test": True, "fact": "toll"})
    (tmp_path / "mine.profiles.json").write_text('{"Grum": "A troll."}')
    assert fetch_data(str(path)) == path and load_profiles(path, "en") == {"Grum": "A troll."}
    assert load_samples(path, "en", "train") == [sample("Grum", "Who?", "Grum."), Sample("own", "Grum", "And?", ("Bridge.", "Toll."), "en",
                                                                                      history=(("Who?", "Grum."),))]
    assert load_samples(path, "other", "test") == [Sample("own", "Grum", "Why?", ("Toll.",), "other", ("toll",))]
    assert list(describe_data(path, load_samples(path, "en", "train"))) == []                # nothing to warn of


@pytest.mark.parametrize("change, message", [
    ({"answer": None}, '"answer"'), ({"history": "hi"}, "a list of"), ({"history": [["q"]]}, "a list of"), ({"history": [["q", " "]]}, "empty turn"),
    ({"test": "yes"}, "neither true nor false"), ({"role": ""}, "empty role")])
def test_a_broken_line_is_named(tmp_path, change, message):
    path = write(tmp_path / "mine.jsonl", {"role": "A", "question": "q", "answer": "a"}, {"role": "A", "question": "q", "answer": "a"} | change)
    with pytest.raises(ValueError, match=message) as error:
        load_samples(path, "en", "train")
    assert f"{path}:2: " in str(error.value)


def test_an_empty_file_a_missing_one_and_a_language_of_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no line"):
        load_samples(write(tmp_path / "mine.jsonl"), "en", "train")
    with pytest.raises(FileNotFoundError, match="no such file"):
        fetch_data(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="choose en, zh, or other"):
        load_samples(write(tmp_path / "mine.jsonl", *many(3)), "all", "train")
    with pytest.raises(ValueError, match="no training line"):
        choose_roles([])


def test_history_stands_in_the_prompt_and_is_not_supervised(tmp_path):
    tokenizer = Tokenizer(ROOT / "tiny/backbone")
    history = (("Who are you?", "Grum."),)
    (example,), *_ = encode_examples([sample("Grum", "And?", "Bridge.", history)], {"Grum": 0}, tokenizer, 128)
    assert example.ids[:example.prompt_len] == tokenizer.prompt("And?", None, history)
    assert example.ids[example.prompt_len:] == tokenizer.encode("Bridge.") + [tokenizer.stop_id]


# -------------------------------------------------------------------------------------------------------- held out
def test_a_tenth_is_held_out_repeatably_and_whatever_the_order(tmp_path):
    lines = many(60)
    path = write(tmp_path / "mine.jsonl", *lines)
    train, test = (load_samples(path, "en", part) for part in ("train", "test"))
    assert len(test) == 6 and len(train) == 54 and {s.role for s in train} == {"Grum", "Pell"}
    random.shuffle(lines)
    assert set(load_samples(write(path, *lines), "en", "test")) == set(test)
    (notice,) = describe_data(path, train)
    assert "6 of 60 are held out" in notice


def test_near_identical_questions_and_the_turns_of_a_conversation_stay_together():
    lines = [sample("A", question) for question in ("What is the name of your river?", "what's the name of your river",
                                                    "What is the name of your river", "Sing the toll song.", "Count the stones.")]
    lines += [sample("A", "And then?", "b", (("Sing the toll song.", "a"),)), sample("B", "And afterwards?", "b", (("Count the stones.", "a"),))]
    assert sorted(group_lines(lines)) == [[0, 1, 2], [3, 5], [4], [6]]                     # B did not hear what A said


@pytest.mark.parametrize("lines, most", [(20, 2), (3, 1), (2, 1)])
def test_every_role_keeps_a_line_to_learn_from(lines, most):
    samples = [sample(f"role {i}", line["question"]) for i, line in enumerate(many(lines))]
    assert hold_out(samples) == []                                                        # one line each
    samples += [sample("role 0", "Is it cold under there in December?")]
    held = hold_out(samples)
    assert len(held) <= most and {s.role for i, s in enumerate(samples) if i not in held} == {s.role for s in samples}


def test_similar_pairs_are_those_of_all_comparisons():
    """Prefix filtering against the definition, over every pair."""
    texts = [line["question"] for line in many(40)]
    texts += [text.replace("the", "a").replace("stone", "stones") for text in texts] + ["", "x"]
    sets = [trigrams(text) for text in texts]
    expected = {(i, j) for i, j in combinations(range(len(sets)), 2) if len(sets[i] & sets[j]) > selection.SIMILAR * len(sets[i] | sets[j])}
    found = list(similar_pairs(sets))
    assert len(expected) > 10 and sorted(tuple(sorted(pair)) for pair in found) == sorted(expected)


def test_questions_without_any_letter_are_all_the_same_question():
    assert normalise("?!  …") == "" and len(group_lines([sample("A", "?"), sample("A", "!!")])) == 1


# ------------------------------------------------------------------------------------------------------------ slips
def test_what_looks_like_a_slip_is_said_once(tmp_path):
    lines = [line | {"test": False, "system": "x"} for line in many(12)] + [{"role": "grum", "question": "New?", "answer": "n", "mood": 1}]
    path = write(tmp_path / "mine.jsonl", *lines)
    alike, held, keys = describe_data(path, load_samples(path, "en", "train"))
    assert "Grum (" in alike and "and grum (" in alike and "'system' (12), 'mood' (1)" in keys


@pytest.mark.parametrize("language, said", [("en", 1), ("other", 1), ("zh", 0)])
def test_chinese_lines_in_another_language_are_said(language, said, tmp_path):
    path = write(tmp_path / "mine.jsonl", *(line | {"answer": "俺老孙住在花果山！", "test": n == 0} for n, line in enumerate(many(6))))
    notices = list(describe_data(path, load_samples(path, language, "train"), language))
    assert len(notices) == said and all("5 of 5 answers have Chinese characters" in notice for notice in notices)


def test_names_that_look_alike():
    assert look_alikes(["Grumbold", "Pell", "Grumbolt", "PELL", "Sherlock Holmes", "Mycroft Holmes"]) == [("Grumbold", "Grumbolt"), ("Pell", "PELL")]


def test_a_name_in_another_case_is_the_same_role():
    assert role_id("count DRACULA ", {"Jack": 0, "Count Dracula": 1}) == 1
    with pytest.raises(ValueError, match="unknown role .GRUM."):
        role_id("GRUM", {"Grum": 0, "grum": 1})


def test_keys_that_nothing_reads_are_named_in_folders_too(tmp_path):
    path = write_rolebench(tmp_path, [("A", "q", ["x"])])
    write(path, {"role": "A", "question": "q", "generated": ["x"], "type": ["script"], "system": "s"})
    (notice,) = describe_data(tmp_path, load_samples(tmp_path, "en", "train"), "en")
    assert notice.endswith("'system' (1)")


def test_check_data_reads_a_file(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "mine.jsonl", *many(40))
    monkeypatch.setattr(sys, "argv", ["tools.check_data", str(path)])
    check_data.main()
    out = capsys.readouterr().out
    assert "own train: 36 lines" in out and "own test: 4 lines" in out and "leaks: 0 of 4" in out
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(SystemExit, match="1 broken line"):
        check_data.main()
    assert f"{path}:41:" in capsys.readouterr().out


def test_check_data_is_as_strict_as_training(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "mine.jsonl", *many(20), {"role": "Grum", "question": "Who?", "answer": "Me.", "test": "true"})
    monkeypatch.setattr(sys, "argv", ["tools.check_data", str(path)])
    with pytest.raises(SystemExit, match="1 broken line"):
        check_data.main()
    assert capsys.readouterr().out.count(f'{path}:21: "test" is neither true nor false') == 1

    write(path, *many(20), {"role": "Grumm", "question": "Who?", "answer": "Me.", "histroy": []})
    check_data.main()
    out = capsys.readouterr().out
    assert "role names that look alike" in out and "keys that nothing reads, with their lines: 'histroy' (1)" in out


def test_the_models_context_cuts_what_max_length_would_keep(tmp_path, capsys):
    """max_length is 1024 by default, and the demo's backbone reads 512 tokens."""
    tokenizer, model_config = Tokenizer(ROOT / "tiny/backbone"), SimpleNamespace(max_positions=40, vocab_size=3072)
    samples = [Sample("own", "A", "day", ("white " * n,), "en") for n in (2, 60)]
    cfg = read_arguments(["--data", "x", "--model", "tiny/backbone", "--device", "cpu"])[0]
    examples = encode(samples, {"A": 0}, {}, tokenizer, cfg, model_config)
    assert max(len(e.ids) for e in examples) == 40 and "the model reads 40 tokens: 1 examples lose the end" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no training example is left: 1 sample, max_length 40"):
        encode([replace(samples[0], question="day " * 60)], {"A": 0}, {}, tokenizer, cfg, model_config)


# ------------------------------------------------------------------------------------------------------ command line
def test_the_demos_language_is_not_that_of_other_data(tmp_path, monkeypatch):
    path = write(tmp_path / "mine.jsonl", *many(3))
    assert read_arguments([])[0].language == "all" and read_arguments(["--data", str(path)])[0].language == "en"
    assert read_arguments(["--config", str(ROOT / "configs/tiny.json"), "--data", str(path)])[0].language == "all"
    monkeypatch.chdir(tmp_path)                                                            # from another directory
    cfg = read_arguments(["--data", "mine.jsonl"])[0]
    assert (cfg.data, cfg.model) == (str(path), "tiny/backbone")


def test_from_a_file_to_scores(tmp_path, monkeypatch, capsys):
    """One run from a file with history and held-out lines; eval.py, from another directory, scores the same lines."""
    lines = many(40)
    lines[3]["history"] = [["Who are you?", "Grum."]]
    write(tmp_path / "mine.jsonl", *lines)
    monkeypatch.chdir(tmp_path)
    train.run_training(["--data", "mine.jsonl", "--max-steps", "2", "--rank", "2", "--max-new-tokens", "2", "--language", "other", "--out", "run"])
    out = capsys.readouterr().out
    assert "4 of 40 are held out" in out and "4 test questions" in out

    monkeypatch.chdir(ROOT)
    held = [s.question for s in load_samples(tmp_path / "mine.jsonl", "other", "test")]
    assert [json.loads(line)["question"] for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()] == held
    write(tmp_path / "tests.jsonl", *(line | {"test": True} for line in lines[:3]), {"role": "Nobody", "question": "q", "answer": "a", "test": True})
    evaluation.score(evaluation.parse_args(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "tests.jsonl"), "--max-new-tokens", "2"]))
    assert "left out: 1 test line of roles that are not in this run (Nobody)" in capsys.readouterr().out
    predictions = (tmp_path / "run/predictions-2.jsonl").read_text().splitlines()
    assert [json.loads(line)["question"] for line in predictions] == [line["question"] for line in lines[:3]]


def test_the_ten_lines_of_python_in_the_docs_run(tmp_path, monkeypatch, capsys):
    """As they stand, but for the settings, which are small enough for a test."""
    code = (ROOT / "docs/own-characters.md").read_text("utf8").split("```python\n")[1].split("```")[0]
    write(tmp_path / "mine.jsonl", *many(6, ("Grum", "Pell")))
    settings = '"--max-steps", "1", "--score-limit", "0", "--rank", "2"'
    assert '"--config", "configs/few-lines.json"' in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace('"--config", "configs/few-lines.json"', settings), {})
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_a_device_that_is_not_there_is_said_in_few_words():
    """torch's own message names every backend that it knows, 1,000 characters of them."""
    with pytest.raises(ValueError, match="device 'xpu' cannot be used here") as error:
        pick_device("xpu")
    assert len(str(error.value)) < 280


def test_roles_and_their_ids_are_the_same_for_every_seed(tmp_path):
    """However few lines of each are drawn: seeds of one method are compared, and have to be about the same roles."""
    path = tmp_path / "own.jsonl"
    write_jsonl(path, [{"role": "ABC"[i % 3], "question": f"{i}?", "answer": str(i)} for i in range(90)])
    keys = ["--data", str(path), "--samples-per-role", "2", "--role-subset", "2", "--score-limit", "0"]
    found = [load_data(read_arguments([*keys, "--seed", str(seed)])[0]) for seed in range(6)]
    assert all(list(roles) == ["A", "B"] and len(samples) == 4 for samples, _, roles, _ in found)
    assert len({tuple(s.question for s in samples) for samples, *_ in found}) > 1
