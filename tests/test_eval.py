"""eval.py: metrics against nltk and rouge, generation, prediction files."""
from console import pad

import json
import random

import pytest
import torch
from conftest import ROOT, command, randomise, small_backbone
from test_layer import hyper_model
from test_likelihood import random_run

from chat import Stream
from data import Sample
from eval import evaluate, make_prediction, parse_args, place_in_run, score
from generate import Decoding, decoding_from_args, generate, generate_texts
from likelihood import read_references
from metrics import METRICS, aggregate, bleu4, contains_fact, mean_scores, rouge, score_answer, tokenize_words
from report import by_question, print_examples, table

GOLDEN = ROOT.parent / "shared/data/rolegpt-answers"
ENGLISH = "the The a knight matey, arr! sea is. was it's don't 3.5 \U0001f600 . ... -- of tea".split()
CHINESE = list("俺老孙一个筋斗云十万八千里，。！？的了\U0001f600") + [".", "a"]


def sentence(language, n):
    pick = random.choices(ENGLISH if language == "en" else CHINESE, k=n)
    return (" " if language == "en" else "").join(pick)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bleu_is_nltks(language):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    for _ in range(1000):
        answer, *references = (tokenize_words(sentence(language, random.choice((0, 1, 2, 3, 8, 20))), language) for _ in range(random.randint(2, 5)))
        expected = sentence_bleu(references, answer, smoothing_function=SmoothingFunction().method3) if answer else 0.0
        assert bleu4(answer, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_rouge_is_the_packages(language):
    from rouge import Rouge
    for _ in range(1000):
        a, b = (" ".join(tokenize_words(s, "zh")) if language == "zh" else s
                for s in (sentence(language, random.choice((0, 1, 2, 5, 20))) for _ in range(2)))
        try:
            expected = {k: v["f"] for k, v in Rouge().get_scores(a, b)[0].items()}
        except ValueError:                                               # the package refuses empty texts
            expected = {"rouge-1": 0, "rouge-2": 0, "rouge-l": 0}
        ours = rouge(a, b)
        for name, theirs in (("rouge1", "rouge-1"), ("rouge2", "rouge-2"), ("rougeL", "rouge-l")):
            assert ours[name] == pytest.approx(expected[theirs], abs=1e-9), (a, b)


def test_english_words_are_nltks_within_a_sentence():
    from nltk.tokenize.destructive import NLTKWordTokenizer
    for text in ("I don't know, matey; it's 3,500 miles (or 3.5) away!", "Well... who's there?", "They'll say: no -- never.",
                 "Holmes can't, won't and shouldn't.", "Rock & roll costs $5, or 10%."):
        assert tokenize_words(text, "en") == NLTKWordTokenizer().tokenize(text)
    assert tokenize_words("One. Two! Three", "en") == ["One", ".", "Two", "!", "Three"]


def test_metrics_by_hand():
    assert score_answer("俺老孙来也", ["俺老孙来也"], "zh") == pytest.approx({"rouge1": 100, "rouge2": 100, "rougeL": 100, "bleu4": 100}, abs=1e-4)
    assert score_answer("", ["x y"], "en") == {"rouge1": 0, "rouge2": 0, "rougeL": 0, "bleu4": 0}
    two = score_answer("a b c", ["a b x y z q", "c"], "en")                 # the best reference, metric by metric
    assert two["rouge1"] == pytest.approx(50, abs=1e-4)
    assert score_answer("是" * 3000, ["是" * 2000 + "不"], "zh")["rougeL"] > 0    # the package dies of recursion here


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="GPT-4's published answers are not here")
@pytest.mark.parametrize("file, language, row, tolerance", [
    ("zh-general", "zh", (37.02, 58.55, 36.53, 52.14), 0.011), ("zh-role_specific", "zh", (7.32, 35.57, 12.28, 23.06), 0.011),
    ("en-role_specific", "en", (8.01, 32.04, 9.89, 28.83), 0.03)])
def test_our_metrics_give_the_papers_gpt4_rows(file, language, row, tolerance, tmp_path):
    out = tmp_path / "s.json"
    command("eval", "--predictions", GOLDEN / f"{file}.jsonl", "--language", language, "--out", out)
    (split,) = json.loads(out.read_text())["splits"].values()
    got = [split["overall"][m] for m in ("bleu4", "rouge1", "rouge2", "rougeL")]
    assert got == pytest.approx(row, abs=tolerance)


@pytest.mark.parametrize("answer, facts, language, right", [
    ("Arr! They call it PARIS, matey.", ["Paris"], "en", True), ("Parisian wine", ["Paris"], "en", False),
    ("old, Marta: Quill", ["old Marta Quill"], "en", True), ("Marta Quill, the old", ["old Marta Quill"], "en", False),
    ("a hive", ["nest", "hive"], "en", True), ("", ["hive"], "en", False), ("嘿嘿！俺老孙住在水帘洞！", ["水帘洞"], "zh", True),
    ("水，帘洞", ["水帘洞"], "zh", True), ("帘水洞", ["水帘洞"], "zh", False)])
def test_a_fact_is_its_words_in_a_row(answer, facts, language, right):
    assert contains_fact(answer, facts, language) is right
    assert score_answer(answer, ["x"], language, facts)["fact"] == 100 * right
    assert "fact" not in score_answer(answer, ["x"], language)


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
    assert "  x A               b A" in text and "    A               c A" in text and text.count("plainly") == 4


# ------------------------------------------------------------------------------------------------------- generation
def prompts(n=5):
    return [torch.randint(1, 97, (random.randint(3, 20),)).tolist() for _ in range(n)]


@pytest.mark.parametrize("decoding", [Decoding(24), Decoding(24, temperature=0.8, top_k=30, top_p=0.9, repetition_penalty=1.2)])
def test_a_mixed_batch_generates_what_each_row_does_alone(decoding):
    model, rows, roles = randomise(hyper_model("hycora"), 0.05), prompts(), [2, 0, 3, 2, 1]
    together = generate(model, rows, roles, {5, 6}, decoding, seeds=[7, 8, 9, 10, 11])
    alone = [generate(model, [p], [r], {5, 6}, decoding, seeds=[7 + i])[0] for i, (p, r) in enumerate(zip(rows, roles))]
    assert together == alone
    assert max(map(len, alone)) <= 24 and not {5, 6} & {t for a in alone for t in a}


def test_a_compiled_backbone_says_the_same_from_a_few_graphs():
    """Prompt and next token, with the same role for all rows and with several: four graphs for six layers, and one or
    two more where sizes that have nothing to do with each other happen to be equal at first."""
    from torch._dynamo.utils import counters
    torch._dynamo.reset()
    counters.clear()
    model = randomise(hyper_model("hycora", small_backbone(num_hidden_layers=6)), 0.05)
    cases = [(prompts(5), [0, 1, 2, 0, 1]), (prompts(3), [1, 1, 1]), (prompts(4), [2, 0, 0, 1]), (prompts(6), [2] * 6)]
    plain = [generate(model, p, roles, {-1}, Decoding(9)) for p, roles in cases]
    model.backbone.compile_blocks(backend="eager")
    assert [generate(model, p, roles, {-1}, Decoding(9)) for p, roles in cases] == plain
    assert 4 <= counters["stats"]["unique_graphs"] <= 6 and not counters["graph_break"]


def test_greedy_equals_argmax_of_full_forwards():
    model, row = randomise(hyper_model("hycora"), 0.05), prompts(1)[0]
    ids = list(row)
    for _ in range(12):
        ids.append(model(torch.tensor([ids]), torch.tensor([1]))[0, -1].argmax().item())
    assert generate(model, [row], [1], {-5}, Decoding(12))[0] == ids[len(row):]
    assert generate(model, [row], None, {-5}, Decoding(12)) == generate(model, [row], None, {-5}, Decoding(12, seed=3))


def test_sampling_follows_the_distribution_and_its_limits():
    from generate import sample_next_token
    logits, n = torch.randn(6) * 2, 20000
    u = torch.rand(n)
    draw = lambda **d: torch.bincount(sample_next_token(logits.expand(n, 6), Decoding(1, **d), u, None), minlength=6) / n  # noqa: E731
    torch.testing.assert_close(draw(temperature=0.7), (logits / 0.7).softmax(-1), atol=0.02, rtol=0)
    top = logits.topk(2).indices
    assert set(draw(temperature=1.0, top_k=2).nonzero().flatten().tolist()) == set(top.tolist())
    p = logits.softmax(-1).sort(descending=True).values
    kept = (draw(temperature=1.0, top_p=0.6) > 0).sum()
    assert kept == (p.cumsum(0) - p < 0.6).sum()
    assert draw(temperature=1.0, top_p=1e-9).max() == 1


def test_repetition_penalty_as_in_transformers():
    transformers = pytest.importorskip("transformers")
    from generate import sample_next_token
    logits, ids = torch.randn(3, 40), torch.randint(40, (3, 12))
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter_(1, ids, True)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(2.5)(ids, logits.clone()).argmax(-1)
    assert torch.equal(sample_next_token(logits, Decoding(1, repetition_penalty=2.5), None, seen), theirs)


def test_the_context_is_never_left():
    model = hyper_model("lora", small_backbone(max_position_embeddings=32))
    assert len(generate(model, [list(range(1, 29))], [0], {-5}, Decoding(99))[0]) == 4
    with pytest.raises(ValueError, match="32 tokens leaves no room"):
        generate(model, [[1] * 32], [0], {-5}, Decoding(5))


def test_what_is_printed_moves_no_cursor_and_waits_for_whole_characters(capsys):
    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode("utf8", "replace")
    stream = Stream(Bytes())
    for byte in "a\x1b[2J\x07茶\n".encode():                           # a token may be a part of a character
        stream([byte])
    stream([], end="\n")
    assert capsys.readouterr().out == "a [2J 茶\n\n"


def test_answers_keep_their_order():
    class Echo:
        stop_ids = {-5}

        def decode(self, ids):
            return " ".join(map(str, ids))
    model, rows = randomise(hyper_model("hycora"), 0.05), prompts(7)
    texts = generate_texts(model, Echo(), rows, [0, 1, 2, 3, 0, 1, 2], Decoding(6), batch_size=3)
    assert texts == [Echo().decode(generate(model, [p], [r], {-5}, Decoding(6))[0]) for p, r in zip(rows, [0, 1, 2, 3, 0, 1, 2])]


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


def test_distinct_n_by_hand():
    line = dict(dict.fromkeys(METRICS, 1.0), language="en")
    s = mean_scores([line | {"answer": "tea tea tea"}, line | {"answer": "tea now"}])
    assert (s["length"], s["distinct1"], s["distinct2"]) == (2.5, 2 / 5, 2 / 3)
    assert mean_scores([line | {"answer": ""}])["distinct2"] == 0


@pytest.mark.parametrize("flag, value", [("--temperature", "-1"), ("--top-p", "0"), ("--top-p", "1.5"), ("--max-new-tokens", "0"), ("--repetition-penalty", "0")])
def test_impossible_decoding_is_refused(flag, value):
    with pytest.raises(ValueError, match="is not possible"):
        decoding_from_args(parse_args(["--run", "r", flag, value]), "en")


def test_scores_of_another_kind_go_beside_and_of_the_same_kind_keep_what_they_lack(tmp_path):
    a, b = {"data": "d", "decoding": {"seed": 1}}, {"data": "d", "decoding": {"seed": 2}}
    def place(scores):
        scores, paths = place_in_run(tmp_path, "", scores)
        return scores, *paths

    scores, path, lines, read = place(a | {"splits": 1})
    assert (path.name, lines.name, read.name) == ("scores.json", "predictions.jsonl", "likelihood.jsonl")
    swap = {"right": {"rougeL": 1.0}, "wrong": {"rougeL": 0.5}}
    path.write_text(json.dumps(a | {"splits": 0, "swap": swap}))
    scores, path, *_ = place(a | {"splits": 1})
    assert path.name == "scores.json" and scores == a | {"splits": 1, "swap": swap}
    _, path, lines, read = place(b | {"splits": 1})
    assert (path.name, lines.name, read.name) == ("scores-2.json", "predictions-2.jsonl", "likelihood-2.jsonl")


@pytest.mark.parametrize("args, message", [
    (["--run", "r", "--predictions", "p"], "either --run"), ([], "either --run"), (["--run", "r", "--backbone", "--swap-roles"], "the untouched --backbone has none"),
    (["--run", "r", "--shots", "2"], "of the untouched --backbone"), (["--run", "r", "--backbone", "--shots", "-1"], "0 or more"),
    (["--run", "r", "--out", "x.jsonl"], "FILE.json"), (["--run", "r", "--batch-size", "0"], "--batch-size"), (["--run", "r", "--limit", "-1"], "--limit"),
    (["--run", "tiny", "--device", "gpu"], "not a run folder")])
def test_score_refuses_before_it_starts(args, message):
    with pytest.raises((ValueError, OSError), match=message):
        score(parse_args(args))


@pytest.mark.parametrize("flags", [["--limit", "3"], ["--swap-roles"], ["--likelihood"], ["--backbone"], ["--shots", "2"], ["--temperature", "1"], ["--seed", "0"], ["--data", "x"]])
def test_what_is_about_a_run_is_refused_for_answers_that_are_there(flags):
    """R6.23: --limit and --swap-roles were ignored."""
    with pytest.raises(ValueError, match=f"{flags[0]} is about a run"):
        score(parse_args(["--predictions", "p", *flags]))


@pytest.mark.parametrize("flag, value", [("--repetition-penalty", "nan"), ("--repetition-penalty", "1e-300"), ("--temperature", "1e-320"), ("--temperature", "nan"),
                                         ("--temperature", "inf"), ("--top-p", "nan"), ("--max-new-tokens", "9999999999"), ("--top-k", "-1"), ("--seed", "1" + "0" * 30)])
def test_decoding_that_would_be_silently_wrong_is_refused(flag, value):
    """R6.22."""
    with pytest.raises(ValueError, match="is not possible"):
        decoding_from_args(parse_args(["--run", "r", flag, value]), "en")


def test_a_sampled_answer_depends_on_its_question_alone():
    """R6.25: it was seeded by its place in the list, so --limit changed it."""
    class Echo:
        stop_ids = {-5}

        def decode(self, ids):
            return " ".join(map(str, ids))
    model, rows, decoding = randomise(hyper_model("hycora"), 0.05), prompts(6), Decoding(6, temperature=1.0, seed=3)
    texts = generate_texts(model, Echo(), rows, [0, 1, 2, 3, 0, 1], decoding, batch_size=4)
    assert generate_texts(model, Echo(), rows[::-2], [1, 3, 1], decoding)[1:2] == texts[3:4]
    assert generate_texts(model, Echo(), rows[2:3], [2], decoding) == texts[2:3] != generate_texts(model, Echo(), rows[2:3], [2], Decoding(6, temperature=1.0))


def test_official_decoding_is_the_languages_and_flags_win():
    args = parse_args(["--run", "r", "--decode", "official", "--top-k", "7"])
    assert decoding_from_args(args, "zh") == Decoding(100, 0.95, 7, 0.7) and decoding_from_args(args, "en") == Decoding(512, 0.7, 7, 0.9)
    with pytest.raises(ValueError, match="one language"):
        decoding_from_args(args, "all")
    assert decoding_from_args(parse_args(["--run", "r", "--seed", "4"]), "all", 64) == Decoding(64, seed=4)


# ---------------------------------------------------------------------------------------------------- files, tables
def test_tables_align_chinese_names():
    assert pad("孙悟空", 8) == "孙悟空  "
    s = {"bleu4": 1.0, "rouge1": 2.0, "rouge2": 3.0, "rougeL": 4.0, "n": 2}
    text = table({"splits": {"general": {"overall": s, "roles": {"孙悟空": s, "Jack": s}}}})
    assert "mean over roles" in text and "4.00" in text


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




@pytest.mark.parametrize("old, new", [("score", "python eval.py --run RUN"), ("chat", "python chat.py --run RUN")])
def test_the_commands_of_old_say_what_they_are_called_now(old, new):
    done = command("eval", old, "--run", "runs/demo", ok=False)
    assert new in done.stderr and len(done.stderr.splitlines()) == 1
