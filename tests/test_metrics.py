"""metrics.py against nltk, the rouge package and plain resampling; what published answers scored."""
import json
import random

import numpy as np
import pytest
import torch
from conftest import ROOT, SEED, command

from metrics import (
    METRICS,
    aggregate,
    bleu4,
    bootstrap,
    bootstrap_difference,
    contains_fact,
    mean_scores,
    repeats_itself,
    rouge,
    score_answer,
    tokenize_words,
)

GOLDEN = ROOT.parent / "shared/data/rolegpt-answers"
ENGLISH = "the The a knight matey, arr! sea is. was it's don't 3.5 \U0001f600 . ... -- of tea".split()
CHINESE = list("俺老孙一个筋斗云十万八千里，。！？的了\U0001f600") + [".", "a"]


def sentence(language, n):
    pick = random.choices(ENGLISH if language == "en" else CHINESE, k=n)
    return (" " if language == "en" else "").join(pick)


def test_metrics_by_hand():
    assert score_answer("俺老孙来也", ["俺老孙来也"], "zh") == pytest.approx({"rouge1": 100, "rouge2": 100, "rougeL": 100, "bleu4": 100}, abs=1e-4)
    assert score_answer("猴王", ["王"], "zh")["rouge1"] == pytest.approx(200 / 3, abs=1e-4)
    assert score_answer("", ["x y"], "en") == {"rouge1": 0, "rouge2": 0, "rougeL": 0, "bleu4": 0}
    two = score_answer("a b c", ["a b x y z q", "c"], "en")                 # the best reference, metric by metric
    assert two["rouge1"] == pytest.approx(50, abs=1e-4)
    assert score_answer("是" * 3000, ["是" * 2000 + "不"], "zh")["rougeL"] > 0    # the package dies of recursion here


def test_words_of_other_languages():
    assert tokenize_words(" Don't stop.\n不要 停", "other") == ["Don't", "stop.", "不要", "停"]
    assert tokenize_words(" 不要 停！a\t1", "zh") == list("不要停！a1")
    assert score_answer("Don't.", ["Don't ."], "other")["bleu4"] == 0 < score_answer("Don't.", ["Don't ."], "en")["bleu4"]


def test_english_words_are_nltks_within_a_sentence():
    from nltk.tokenize.destructive import NLTKWordTokenizer
    for text in ("I don't know, matey; it's 3,500 miles (or 3.5) away!", "Well... who's there?", "They'll say: no -- never.",
                 "Holmes can't, won't and shouldn't.", "Rock & roll costs $5, or 10%."):
        assert tokenize_words(text, "en") == NLTKWordTokenizer().tokenize(text)
    assert tokenize_words("One. Two! Three", "en") == ["One", ".", "Two", "!", "Three"]


@pytest.mark.parametrize("answer, facts, language, right", [
    ("Arr! They call it PARIS, matey.", ["Paris"], "en", True), ("Parisian wine", ["Paris"], "en", False),
    ("old, Marta: Quill", ["old Marta Quill"], "en", True), ("Marta Quill, the old", ["old Marta Quill"], "en", False),
    ("a hive", ["nest", "hive"], "en", True), ("", ["hive"], "en", False), ("嘿嘿！俺老孙住在水帘洞！", ["水帘洞"], "zh", True),
    ("水，帘洞", ["水帘洞"], "zh", True), ("帘水洞", ["水帘洞"], "zh", False)])
def test_a_fact_is_its_words_in_a_row(answer, facts, language, right):
    assert contains_fact(answer, facts, language) is right
    assert score_answer(answer, ["x"], language, facts)["fact"] == 100 * right
    assert "fact" not in score_answer(answer, ["x"], language)


def test_means_by_split_role_and_kind():
    """By hand: every metric has numbers of its own, so that none is taken for another."""
    def line(split, role, kind, answer, number, **more):
        return {"split": split, "role": role, "kind": kind, "answer": answer} | {name: 10.0 * i + number for i, name in enumerate(METRICS)} | more
    lines = [line("role_specific", "B", "town", "tea 茶", 3, fact=100.0), line("general", "A", "", "tea tea", 1, language="en", fact=100.0),
             line("general", "B", None, "俺 老孙", 4, language="zh"), line("general", "A", "own", "now", 2, fact=0.0)]
    found = aggregate(lines)
    assert list(found) == ["general", "role_specific"] and list(found["general"]["roles"]) == ["A", "B"]
    assert {role: (of["n"], of["bleu4"]) for role, of in found["general"]["roles"].items()} == {"A": (2, 1.5), "B": (1, 4)}
    assert found["general"]["kinds"] == {"own": mean_scores(lines[3:])} and found["role_specific"]["kinds"] == {"town": mean_scores(lines[:1])}
    assert "kinds" not in aggregate(lines[1:3])["general"]

    overall = found["general"]["overall"]
    numbers = [1.0, 4.0, 2.0]
    for i, name in enumerate(METRICS):
        assert overall[name] == pytest.approx(10 * i + 7 / 3)
        assert overall["interval"][name] == pytest.approx([10 * i + limit for limit in bootstrap(numbers)])
    assert (overall["n"], overall["length"], overall["distinct1"], overall["distinct2"]) == (3, 2, 5 / 6, 1)
    assert (overall["fact"], overall["n_facts"], overall["interval"]["fact"]) == (50, 2, [0, 100]) and "fact" not in found["general"]["roles"]["B"]


def test_distinct_n_by_hand():
    line = dict(dict.fromkeys(METRICS, 1.0), language="en")
    s = mean_scores([line | {"answer": "tea tea tea"}, line | {"answer": "tea now"}])
    assert (s["length"], s["distinct1"], s["distinct2"]) == (2.5, 2 / 5, 2 / 3)
    assert mean_scores([line | {"answer": ""}])["distinct2"] == 0 and mean_scores([line | {"answer": "tea now"}])["distinct2"] == 1


def test_an_answer_that_runs_in_a_circle():
    rng = random.Random(SEED)
    found = set()
    for _ in range(500):
        words = rng.choices("ab", k=rng.randrange(16))
        loop = any(words[i:i + n] == words[i + n:i + 2 * n] == words[i + 2 * n:i + 3 * n] for n in range(2, 9) for i in range(len(words) - 3 * n + 1))
        assert repeats_itself(" ".join(words), "en") == repeats_itself("".join(words), "zh") == loop, words
        found.add(loop)
    assert found == {True, False}
    assert not repeats_itself("哈哈哈！", "zh") and not repeats_itself("no, no, no", "en") and not repeats_itself("bb abb abb a", "en")
    lines = [dict.fromkeys(METRICS, 1.0) | {"answer": "the cat of the cat of the cat of tea"}, dict.fromkeys(METRICS, 1.0) | {"answer": "tea"}]
    assert mean_scores(lines)["loops"] == 50


def test_bootstrap_of_constants_and_columns():
    low, high = bootstrap(np.stack([np.full(50, 3.0), np.arange(50)], 1))
    assert low[0] == high[0] == 3 and low[1] < 24.5 < high[1]


def test_the_bootstrap_of_many_draws_has_the_normal_limits():
    values = np.linspace(-1, 1, 100)
    low, high = bootstrap(values + 5, resamples=40_000)
    error = values.std() / 10
    assert [low, high] == pytest.approx([5 - 1.96 * error, 5 + 1.96 * error], abs=0.06 * error)
    assert bootstrap(values) == bootstrap(values, resamples=1000, seed=0) != bootstrap(values, seed=1)
    a, b = np.stack([values, values + 1]), np.stack([values[::-1]])
    assert bootstrap_difference(a, b) == bootstrap_difference(a, b, resamples=1000, seed=0) != bootstrap_difference(a, b, seed=1)


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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bleu_is_nltks(language):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    for _ in range(1000):
        answer, *references = (tokenize_words(sentence(language, random.choice((0, 1, 2, 3, 8, 20))), language) for _ in range(random.randint(2, 5)))
        expected = sentence_bleu(references, answer, smoothing_function=SmoothingFunction().method3) if answer else 0.0
        assert bleu4(answer, references) == pytest.approx(expected, abs=1e-9)


def test_bootstrap_of_items_and_seeds_together():
    """Of one run a side it is the paired bootstrap; of many it is as wide as plain resampling, and as the variances say."""
    rng = np.random.default_rng(torch.randint(1000, ()).item())
    a, b = rng.normal(size=(1, 60)), rng.normal(size=(1, 60))
    assert bootstrap_difference(a, b) == pytest.approx(bootstrap((a - b)[0]))

    items = rng.normal(size=60)
    a = items + rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=(6, 60))            # what a run has in common with itself
    b = 0.5 * items + rng.normal(size=(4, 1))
    low, high = bootstrap_difference(a, b, 4000)
    drawn = []
    for _ in range(4000):
        which = rng.integers(60, size=60)
        drawn.append(a[rng.integers(6, size=6)][:, which].mean() - b[rng.integers(4, size=4)][:, which].mean())
    variance = a.mean(1).var() / 6 + b.mean(1).var() / 4 + (a.mean(0) - b.mean(0)).var() / 60
    assert [low, high] == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.25 * variance ** 0.5)     # 4 standard errors
    assert (high - low) / 2 == pytest.approx(1.96 * variance ** 0.5, rel=0.15)


def test_runs_of_the_same_seeds_are_compared_seed_by_seed():
    """What a seed does to both sides cancels: b is a, 0.3 lower but for noise of 0.01 a seed. Against scipy's own bootstrap."""
    from scipy.stats import bootstrap as scipys
    rng = np.random.default_rng(torch.randint(1000, ()).item())
    a = rng.normal(size=(8, 1)) + np.zeros(40)
    b = a - 0.3 + 0.01 * rng.normal(size=(8, 1))
    low, high = bootstrap_difference(a, b, 4000, same_seeds=True)
    theirs = scipys(((a - b)[:, 0],), np.mean, n_resamples=4000, method="percentile").confidence_interval
    assert [low, high] == pytest.approx(list(theirs), abs=0.002) and high - low < 0.05
    low, high = bootstrap_difference(a, b)
    assert high - low > 0.3


def test_items_of_a_group_are_drawn_together():
    """Of groups of five equal items the interval is that of the groups alone; unequal groups count by their items."""
    rng = np.random.default_rng(torch.randint(1000, ()).item())
    a, b = rng.normal(size=(2, 3, 40))
    questions = np.arange(200) // 5
    found = bootstrap_difference(a.repeat(5, 1), b.repeat(5, 1), groups=questions)
    assert found == pytest.approx(bootstrap_difference(a, b), abs=1e-9) and found != bootstrap_difference(a.repeat(5, 1), b.repeat(5, 1))

    sizes = rng.integers(1, 6, size=30)
    groups = np.repeat(np.arange(30), sizes)
    values = rng.normal(size=(1, 30)).repeat(sizes, 1) + 0.3 * rng.normal(size=(1, len(groups)))
    drawn = []
    for _ in range(4000):
        which = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(30, size=30)])
        drawn.append(values[0, which].mean())
    found = bootstrap_difference(values, np.zeros_like(values), 4000, groups=groups)
    assert found == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.25 * np.std(drawn))


def test_how_often_an_interval_over_few_seeds_holds_the_mean():
    """50, 75 and 84 of 100 times with two, three and five seeds, where nothing but the seeds varies: RESULTS.md says so."""
    rng = np.random.default_rng(0)
    for seeds, expected in ((2, 50), (3, 75), (5, 84)):
        held = 0
        for _ in range(600):
            low, high = bootstrap_difference(rng.normal(size=(seeds, 1)), np.zeros((1, 1)), 400)
            held += low <= 0 <= high
        assert held / 6 == pytest.approx(expected, abs=5)


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
