"""eval.py: metrics against nltk and rouge, generation, prediction files."""
import json
import random
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, randomise, small_backbone
from test_layer import hyper_model

from eval import Decoding, answer, bleu4, generate, metrics, pad, rouge, table, words

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
        answer, *references = (words(sentence(language, random.choice((0, 1, 2, 3, 8, 20))), language) for _ in range(random.randint(2, 5)))
        expected = sentence_bleu(references, answer, smoothing_function=SmoothingFunction().method3) if answer else 0.0
        assert bleu4(answer, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_rouge_is_the_packages(language):
    from rouge import Rouge
    for _ in range(1000):
        a, b = (" ".join(words(s, "zh")) if language == "zh" else s
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
        assert words(text, "en") == NLTKWordTokenizer().tokenize(text)
    assert words("One. Two! Three", "en") == ["One", ".", "Two", "!", "Three"]


def test_metrics_by_hand():
    assert metrics("俺老孙来也", ["俺老孙来也"], "zh") == pytest.approx({"rouge1": 100, "rouge2": 100, "rougeL": 100, "bleu4": 100}, abs=1e-4)
    assert metrics("", ["x y"], "en") == {"rouge1": 0, "rouge2": 0, "rougeL": 0, "bleu4": 0}
    two = metrics("a b c", ["a b x y z q", "c"], "en")                 # the best reference, metric by metric
    assert two["rouge1"] == pytest.approx(50, abs=1e-4)
    assert metrics("是" * 3000, ["是" * 2000 + "不"], "zh")["rougeL"] > 0    # the package dies of recursion here


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="GPT-4's published answers are not here")
@pytest.mark.parametrize("file, language, row, tolerance", [
    ("zh-general", "zh", (37.02, 58.55, 36.53, 52.14), 0.011), ("zh-role_specific", "zh", (7.32, 35.57, 12.28, 23.06), 0.011),
    ("en-role_specific", "en", (8.01, 32.04, 9.89, 28.83), 0.03)])
def test_our_metrics_give_the_papers_gpt4_rows(file, language, row, tolerance, tmp_path):
    out = tmp_path / "s.json"
    subprocess.run([sys.executable, "eval.py", "score", "--predictions", GOLDEN / f"{file}.jsonl", "--language", language,
                    "--out", out], cwd=ROOT, check=True, capture_output=True)
    (split,) = json.loads(out.read_text())["splits"].values()
    got = [split["overall"][m] for m in ("bleu4", "rouge1", "rouge2", "rougeL")]
    assert got == pytest.approx(row, abs=tolerance)


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


def test_greedy_equals_argmax_of_full_forwards():
    model, row = randomise(hyper_model("hycora"), 0.05), prompts(1)[0]
    ids = list(row)
    for _ in range(12):
        ids.append(model(torch.tensor([ids]), torch.tensor([1]))[0, -1].argmax().item())
    assert generate(model, [row], [1], {-5}, Decoding(12))[0] == ids[len(row):]
    assert generate(model, [row], None, {-5}, Decoding(12)) == generate(model, [row], None, {-5}, Decoding(12, seed=3))


def test_sampling_follows_the_distribution_and_its_limits():
    from eval import choose
    logits, n = torch.randn(6) * 2, 20000
    u = torch.rand(n)
    draw = lambda **d: torch.bincount(choose(logits.expand(n, 6), Decoding(1, **d), u, None), minlength=6) / n  # noqa: E731
    torch.testing.assert_close(draw(temperature=0.7), (logits / 0.7).softmax(-1), atol=0.02, rtol=0)
    top = logits.topk(2).indices
    assert set(draw(temperature=1.0, top_k=2).nonzero().flatten().tolist()) == set(top.tolist())
    p = logits.softmax(-1).sort(descending=True).values
    kept = (draw(temperature=1.0, top_p=0.6) > 0).sum()
    assert kept == (p.cumsum(0) - p < 0.6).sum()
    assert draw(temperature=1.0, top_p=1e-9).max() == 1


def test_repetition_penalty_as_in_transformers():
    transformers = pytest.importorskip("transformers")
    from eval import choose
    logits, ids = torch.randn(3, 40), torch.randint(40, (3, 12))
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter_(1, ids, True)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(2.5)(ids, logits.clone()).argmax(-1)
    assert torch.equal(choose(logits, Decoding(1, repetition_penalty=2.5), None, seen), theirs)


def test_the_context_is_never_left():
    model = hyper_model("lora", small_backbone(max_position_embeddings=32))
    assert len(generate(model, [list(range(1, 29))], [0], {-5}, Decoding(99))[0]) == 4
    with pytest.raises(ValueError, match="32 tokens leaves no room"):
        generate(model, [[1] * 32], [0], {-5}, Decoding(5))


def test_answers_keep_their_order():
    class Echo:
        stop_ids = {-5}

        def decode(self, ids):
            return " ".join(map(str, ids))
    model, rows = randomise(hyper_model("hycora"), 0.05), prompts(7)
    texts = answer(model, Echo(), rows, [0, 1, 2, 3, 0, 1, 2], Decoding(6), batch_size=3)
    assert texts == [Echo().decode(generate(model, [p], [r], {-5}, Decoding(6))[0]) for p, r in zip(rows, [0, 1, 2, 3, 0, 1, 2])]


# ---------------------------------------------------------------------------------------------------- files, tables
def test_tables_align_chinese_names():
    assert pad("孙悟空", 8) == "孙悟空  "
    s = {"bleu4": 1.0, "rouge1": 2.0, "rouge2": 3.0, "rougeL": 4.0, "n": 2}
    text = table({"splits": {"general": {"overall": s, "roles": {"孙悟空": s, "Jack": s}}}})
    assert "mean over roles" in text and "4.00" in text


@pytest.mark.parametrize("line, message", [('{"split": "general"}', ":1: lacks"), ("{", "not JSON"), ("", "no prediction"),
                                           ('{"split": "g", "role": "A", "references": [], "answer": "x"}', "at least one"),
                                           ('{"split": "g", "role": "A", "references": "x", "answer": "x"}', "a list of"),
                                           ('{"split": "g", "role": "A", "references": ["x"], "answer": null}', "has to be text")])
def test_broken_prediction_files(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(line + "\n")
    done = subprocess.run([sys.executable, "eval.py", "score", "--predictions", path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr and len(done.stderr.splitlines()) == 1


