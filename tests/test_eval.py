"""eval.py: what a score says, which files it writes, the examples and tables of report.py."""
from console import pad

import json

import pytest
from conftest import ROOT, command, small_backbone
from test_layer import hyper_model
from test_likelihood import random_run

from data import Sample
from eval import (
    evaluate,
    make_prediction,
    parse_args,
    place_in_run,
    score,
    score_paths,
    training_samples,
    write_scores,
)
from generate import Decoding
from likelihood import read_references
from metrics import aggregate, tokenize_words
from report import by_question, describe_model, print_examples, table


def test_facts_are_counted_by_role_split_and_kind_and_only_where_the_data_have_them():
    samples = [Sample("role_specific", role, f"q{i}", ("the bay is deep",), "en", facts, kind)
               for i, (role, facts, kind) in enumerate([("A", ("deep",), "own"), ("A", ("wide",), "town"), ("B", (), "town")])]
    lines = [make_prediction(s, "The bay is deep.", "a test") for s in samples]
    assert [line.get("facts") for line in lines] == [["deep"], ["wide"], None]
    split = aggregate(lines)["role_specific"]
    assert split["overall"]["fact"] == 50 and split["overall"]["n_facts"] == 2 and split["overall"]["interval"]["fact"] == [0, 100]
    assert split["roles"]["A"]["fact"] == 50 and "fact" not in split["roles"]["B"]
    assert {kind: (s["n"], s["fact"]) for kind, s in split["kinds"].items()} == {"own": (1, 100), "town": (2, 0)}

    # the table shows them, alone and before -> after
    scores = {"splits": {"role_specific": split}}
    assert "fact, 95 %" in table(scores) and "[0.0, 100.0]" in table(scores)
    assert "50.0 ->  50.0" in table(scores, scores) and "kind of knowledge" in table(scores, scores)
    plain = {"splits": aggregate([make_prediction(samples[2], "x", "a test")])}
    assert "fact" not in table(plain) and "bleu4" in table(plain, plain)


def test_examples_are_the_median_and_the_worst_by_facts_then_rouge(capsys):
    def line(question, role, fact, rouge, language="en"):
        return {"split": "general", "language": language, "question": question, "role": role, "answer": f"{question} {role}",
                "fact": fact, "rougeL": rouge}
    after = [line(q, role, fact, rouge) for q, fact, rouge in (("a", 100, 9), ("b", 0, 80), ("c", 100, 8)) for role in "AB"]
    after += [line("asked of one alone", "A", 0, 0), line("z", "孙悟空", 100, 5, "zh")]
    before = [prediction | {"answer": "plainly"} for prediction in after]
    pairs = list(zip(after, before))
    assert [group[0][0]["question"] for group in by_question(pairs[:7])] == ["b", "c", "a"]
    print_examples(after, before)
    text = capsys.readouterr().out
    assert text.count("general, the median: ") == 2 and "general, the median: c" in text and "of all, the worst: b" in text
    assert "  x A               b A" in text and "    A               c A" in text and text.count("plainly") == 3
    assert text.count("of all, the worst") == 1              # the only Chinese question is the median, and not shown twice

    # what a role was taught and what not, where that differs
    for prediction in after:
        prediction["kind"] = "taught" if (prediction["question"], prediction["role"]) == ("b", "A") else "not taught"
    print_examples(after, before)
    text = capsys.readouterr().out
    assert "b A  [taught]\n" in text and "b B  [not taught]\n" in text and text.count("[") == 2

    # data without facts have no x to explain
    assert "x: the fact is wrong" in text
    for prediction in after:
        del prediction["fact"]
    print_examples(after, before)
    assert "x: the fact" not in capsys.readouterr().out


def test_evaluate_says_what_made_it_and_what_it_found():
    model, tokenizer, config, samples = random_run()
    scores, lines = evaluate(model, tokenizer, config, samples, Decoding(3, seed=5), swap=True)
    assert {"by", "splits", "swap", "decoding"} <= scores.keys()
    assert scores["by"] == lines[0]["by"] == "hycora in r, d (all), seed 3; greedy, max_new_tokens 3, seed 5"
    s = scores["splits"]["general"]["overall"]
    of = [p for p in lines if p["split"] == "general"]
    assert s["n"] == len(of) and s["length"] == pytest.approx(sum(len(tokenize_words(p["answer"], p["language"])) for p in of) / len(of))
    assert s["interval"]["rougeL"][0] <= s["rougeL"] <= s["interval"]["rougeL"][1] and 0 <= s["distinct1"] <= 1
    found, _ = read_references(model, tokenizer, config, samples)
    text = table(scores | found)
    assert text.startswith("nats per token") and "zero - right" in text and "retrieval: " in text and "read as another role" in text
    other, lines = evaluate(model, tokenizer, config | {"model": "m"}, samples[:4], Decoding(3), None, shots={samples[0].role: (("q", "a"),)})
    assert lines[0]["by"].startswith("the untouched m with 1 example of the role, d (all)")


def test_scores_of_another_kind_go_beside_and_of_the_same_kind_keep_what_they_lack(tmp_path):
    a, b = {"data": "d", "decoding": {"seed": 1}}, {"data": "d", "decoding": {"seed": 2}}
    def place(made_by, roles=("Ann", "Bob")):
        kept, paths = place_in_run(tmp_path, "", made_by, roles)
        return kept, *paths

    kept, path, lines, read = place(a)
    assert kept == {} and (path.name, lines.name, read.name) == ("scores.json", "predictions.jsonl", "likelihood.jsonl")
    swap = {"right": {"rougeL": 1.0}, "wrong": {"rougeL": 0.5}}
    path.write_text(json.dumps(a | {"splits": {"general": {"roles": {"Ann": {}}}}, "swap": swap}))
    kept, path, *_ = place(a)
    assert path.name == "scores.json" and kept == {"swap": swap}
    kept, path, *_ = place(a, ("Anna", "Bob"))                                           # Ann was renamed: that was another's
    assert path.name == "scores.json" and kept == {}
    kept, path, lines, read = place(b)
    assert (path.name, lines.name, read.name) == ("scores-2.json", "predictions-2.jsonl", "likelihood-2.jsonl")


@pytest.mark.parametrize("args, message", [
    (["--run", "r", "--predictions", "p"], "either --run"), ([], "either --run"), (["--run", "r", "--backbone", "--swap-roles"], "the untouched --backbone has none"),
    (["--run", "r", "--likelihood-limit", "2"], "give both"),
    (["--run", "r", "--shots", "2"], "of the untouched --backbone"), (["--run", "r", "--backbone", "--shots", "-1"], "0 or more"),
    (["--run", "r", "--out", "x.jsonl"], "FILE.json"), (["--run", "r", "--batch-size", "0"], "--batch-size"), (["--run", "r", "--limit", "-1"], "--limit"),
    (["--run", "tiny", "--device", "gpu"], "not a run folder")])
def test_score_refuses_before_it_starts(args, message):
    with pytest.raises((ValueError, OSError), match=message):
        score(parse_args(args))


@pytest.mark.parametrize("flags", [["--limit", "3"], ["--swap-roles"], ["--likelihood"], ["--backbone"], ["--shots", "2"], ["--temperature", "1"], ["--seed", "0"], ["--data", "x"], ["--decode", "official"]])
def test_what_is_about_a_run_is_refused_for_answers_that_are_there(flags):
    """--limit and --swap-roles were ignored."""
    with pytest.raises(ValueError, match=f"{flags[0]} is about a run"):
        score(parse_args(["--predictions", "p", *flags]))


# ---------------------------------------------------------------------------------------------------- files, tables
def test_tables_align_chinese_names():
    assert pad("孙悟空", 8) == "孙悟空  "
    s = {"bleu4": 1.0, "rouge1": 2.0, "rouge2": 3.0, "rougeL": 4.0, "n": 2}
    text = table({"splits": {"general": {"overall": s, "roles": {"孙悟空": s, "Jack": s}}}})
    assert "mean over roles" in text and "4.00" in text

    # a role that one split lacks
    after = {"splits": {"general": {"overall": s, "roles": {"Jack": s}}, "role_specific": {"overall": s, "roles": {"Jack": s, "孙悟空": s}}}}
    (row,) = [line for line in table(after, after).splitlines() if line.startswith("孙悟空")]
    assert row.split() == ["孙悟空", "-", "-", "4.0", "->", "4.0", "1.0", "->", "1.0"]


@pytest.mark.parametrize("line, message", [('{"split": "general"}', ':1: "role" is missing'), ("{", "not JSON"), ("", "no prediction"),
                                           ('{"split": "g", "role": "A", "references": [], "answer": "x"}', "at least one"),
                                           ('{"split": "g", "role": "A", "references": "x", "answer": "x"}', "a list of"),
                                           ('{"split": "g", "role": "A", "references": ["x"], "answer": "x", "facts": "x"}', "a list of texts"),
                                           ('{"split": "g", "role": "A", "references": ["x"], "answer": null}', '"answer" is missing or not text')])
def test_broken_prediction_files(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(line + "\n")
    done = command("eval", "--predictions", path, ok=False)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_only_what_was_written_is_called_so(tmp_path):
    """Of an earlier scoring likelihood.jsonl may be there."""
    paths = score_paths(tmp_path)
    paths[2].touch()
    assert write_scores(paths, {}, [{"answer": "x"}]) == paths[:2]


def test_what_is_adapted_is_told_in_aligned_lines():
    """Trainable numbers by hand: 48 wide, 4 roles, rank and head rank 4, role and layer dimension 8, hidden dimension 16."""
    text = describe_model(hyper_model("hycora", target_modules=("q_proj", "down_proj"), num_blocks=1))
    encoder = 4 * 8 + 6 * 8 + 2 * 16 + 17 * 16 + (2 * 17 * 16 + 2 * 16) + 2 * 16
    adapters = [(17 * 4 + 5 * 4 * d_in) + 3 * 48 * 4 for d_in in (48, 80)]
    projections = 9 * 8 + 49 * 8
    frozen = sum(p.numel() for p in small_backbone().parameters())
    assert [line.split() for line in text.splitlines()] == [
        "adapted linears W_0 A: hyper B: shared trainable".split(), f"q_proj 3 48 x 48 4 x 48 48 x 4 {adapters[0]:,}".split(),
        f"down_proj 3 48 x 80 4 x 80 48 x 4 {adapters[1]:,}".split(), f"frozen, float32 {frozen:,}".split(),
        f"encoder of the hyper-network {encoder:,}".split(), f"contrastive projections {projections}".split(),
        f"trainable in all, fp32 {encoder + sum(adapters) + projections:,}".split()]
    assert {len(line) for line in text.splitlines()} == {90}

    without = describe_model(hyper_model("ind-lora", target_modules=("q_proj",)))
    assert "A: role" in without and "B: role" in without and f"{4 * 3 * 2 * 4 * 48:,}" in without and "hyper" not in without


def test_examples_for_a_prompt_are_lines_that_the_run_was_trained_on():
    config = {"data": ROOT / "tiny/rolebench", "language": "zh", "splits": ["role_specific"], "generalization": "instruction",
              "samples_per_role": 3, "seed": 5, "roles": {"林黛玉": 0}}
    lines = training_samples(config)
    assert len(lines) == 3 and {(s.role, s.split) for s in lines} == {("林黛玉", "role_specific")} and lines != training_samples(config | {"seed": 6})
    assert len(training_samples(config | {"samples_per_role": 0})) > 3
