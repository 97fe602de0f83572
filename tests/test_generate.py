"""generate.py: mixed batches, sampling against its distribution, limits, keys of decoding."""
import math
import random

import pytest
import torch
from conftest import randomise, small_backbone
from test_layer import hf_pair, hyper_model

from eval import parse_args
from generate import Decoding, decoding_from_args, generate, generate_texts, sample_next_token


class Echo:
    """In a tokenizer's place: an answer is its ids."""
    stop_ids = {-5}

    def decode(self, ids):
        return " ".join(map(str, ids))


def prompts(n=5):
    return [torch.randint(1, 97, (random.randint(3, 20),)).tolist() for _ in range(n)]


@pytest.mark.parametrize("decoding", [Decoding(24), Decoding(24, temperature=0.8, top_k=30, top_p=0.9, repetition_penalty=1.2)])
def test_a_mixed_batch_generates_what_each_row_does_alone(decoding):
    model, rows, roles = randomise(hyper_model("hycora"), 0.05).double(), prompts(), [2, 0, 3, 2, 1]     # where rounding decides nothing
    streamed = []
    together = generate(model, rows, roles, {5, 6}, decoding, seeds=[7, 8, 9, 10, 11], on_token=streamed.append)
    assert [[token for token in column if token >= 0] for column in zip(*streamed)] == together
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
    for (p, roles), expected in zip(cases, plain):
        assert generate(model, p, roles, {-1}, Decoding(9)) == expected
        (cache,) = model.backbone.static_caches.values()
        with torch.inference_mode():
            cache[0].v.fill_(math.nan)                                   # what an overflow could leave behind
        assert generate(model, p, roles, {-1}, Decoding(9)) == expected
        assert list(model.backbone.static_caches.values()) == [cache]    # the same memory again
    assert 4 <= counters["stats"]["unique_graphs"] <= 6 and not counters["graph_break"]


def test_greedy_equals_argmax_of_full_forwards():
    model, row = randomise(hyper_model("hycora"), 0.05), prompts(1)[0]
    ids = list(row)
    for _ in range(12):
        ids.append(model(torch.tensor([ids]), torch.tensor([1]))[0, -1].argmax().item())
    assert generate(model, [row], [1], {-5}, Decoding(12))[0] == ids[len(row):]
    assert generate(model, [row], None, {-5}, Decoding(12)) == generate(model, [row], None, {-5}, Decoding(12, seed=3))


def test_sampling_follows_the_distribution_and_its_limits():
    logits, n = torch.rand(6) * 4, 20000             # none is too rare to be drawn
    u = torch.rand(n)

    def draw(**limits):
        drawn = sample_next_token(logits.expand(n, 6), Decoding(1, **limits), u, None)
        return torch.bincount(drawn, minlength=6) / n
    torch.testing.assert_close(draw(temperature=0.7), (logits / 0.7).softmax(-1), atol=0.02, rtol=0)
    top = logits.topk(2).indices
    assert set(draw(temperature=1.0, top_k=2).nonzero().flatten().tolist()) == set(top.tolist())
    p = logits.softmax(-1).sort(descending=True).values
    kept = (draw(temperature=1.0, top_p=0.6) > 0).sum()
    assert kept == (p.cumsum(0) - p < 0.6).sum()
    assert draw(temperature=1.0, top_p=1e-9).max() == 1


@pytest.mark.parametrize("limits", [dict(top_k=3, top_p=0.7), dict(temperature=0.7, top_k=5, top_p=0.9), dict(temperature=1.6, top_p=0.8),
                                    dict(temperature=0.5, top_k=99)])
def test_top_k_top_p_and_temperature_together_as_in_transformers(limits):
    transformers = pytest.importorskip("transformers")
    logits, n = torch.randn(8) * 1.5, 20000
    scores = transformers.TemperatureLogitsWarper(limits.get("temperature", 1.0))(None, logits[None])
    if "top_k" in limits:
        scores = transformers.TopKLogitsWarper(limits["top_k"])(None, scores)
    if "top_p" in limits:
        scores = transformers.TopPLogitsWarper(limits["top_p"])(None, scores)
    expected = scores[0].softmax(-1)
    uniform = (torch.arange(n) + 0.5) / n                                # evenly spread: the frequencies are the probabilities, within 1 / n
    drawn = sample_next_token(logits.expand(n, 8), Decoding(1, **{"temperature": 1.0} | limits), uniform, None)
    torch.testing.assert_close(torch.bincount(drawn, minlength=8) / n, expected, atol=3e-4, rtol=0)


def test_repetition_penalty_in_whole_answers_as_in_transformers(tmp_path):
    """What counts as said: the prompt, and each new token."""
    theirs, backbone = hf_pair(tmp_path)
    model = hyper_model("lora", backbone)
    for row in prompts(4):
        ids = theirs.generate(torch.tensor([row]), attention_mask=torch.ones(1, len(row)), max_new_tokens=20, do_sample=False,
                              repetition_penalty=1.5, eos_token_id=None, pad_token_id=0)
        assert generate(model, [row], None, {-5}, Decoding(20, repetition_penalty=1.5))[0] == ids[0, len(row):].tolist()


def test_repetition_penalty_as_in_transformers():
    transformers = pytest.importorskip("transformers")
    logits, ids = torch.randn(3, 40), torch.randint(40, (3, 12))
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter_(1, ids, True)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(2.5)(ids, logits.clone()).argmax(-1)
    assert torch.equal(sample_next_token(logits, Decoding(1, repetition_penalty=2.5), None, seen), theirs)


def test_a_row_that_fills_the_context_does_not_cut_the_others_short():
    model, rows = randomise(hyper_model("hycora", small_backbone(max_position_embeddings=32)), 0.05), [list(range(1, n + 1)) for n in (29, 5, 17)]
    together = generate(model, rows, [0, 1, 2], {-5}, Decoding(20))
    assert list(map(len, together)) == [3, 20, 15]
    assert together == [generate(model, [row], [role], {-5}, Decoding(20))[0] for role, row in enumerate(rows)]


def test_a_prompt_that_fills_the_context_has_no_answer_and_leaves_the_others_theirs():
    model, rows = randomise(hyper_model("hycora", small_backbone(max_position_embeddings=32)), 0.05), [[1] * 40, [2, 3, 4], [1] * 32]
    found = generate_texts(model, Echo(), rows, [0, 1, 2], Decoding(4))
    assert found[0] is found[2] is None and found[1] == Echo().decode(generate(model, rows[1:2], [1], {-5}, Decoding(4))[0])
    assert generate_texts(model, Echo(), rows[:1], [0], Decoding(4)) == [None]


def test_the_context_is_never_left():
    model = hyper_model("lora", small_backbone(max_position_embeddings=32))
    assert len(generate(model, [list(range(1, 29))], [0], {-5}, Decoding(99))[0]) == 4
    with pytest.raises(ValueError, match="32 tokens leaves no room"):
        generate(model, [[1] * 32], [0], {-5}, Decoding(5))


def test_answers_keep_their_order():
    model, rows = randomise(hyper_model("hycora"), 0.05), prompts(7)
    texts = generate_texts(model, Echo(), rows, [0, 1, 2, 3, 0, 1, 2], Decoding(6), batch_size=3)
    assert texts == [Echo().decode(generate(model, [p], [r], {-5}, Decoding(6))[0]) for p, r in zip(rows, [0, 1, 2, 3, 0, 1, 2])]


@pytest.mark.parametrize("flag, value", [("--temperature", "-1"), ("--top-p", "0"), ("--top-p", "1.5"), ("--max-new-tokens", "0"), ("--repetition-penalty", "0")])
def test_impossible_decoding_is_refused(flag, value):
    with pytest.raises(ValueError, match="is not possible"):
        decoding_from_args(parse_args(["--run", "r", flag, value]), "en")


@pytest.mark.parametrize("flag, value", [("--repetition-penalty", "nan"), ("--repetition-penalty", "1e-300"), ("--temperature", "1e-320"), ("--temperature", "nan"),
                                         ("--temperature", "inf"), ("--top-p", "nan"), ("--max-new-tokens", "9999999999"), ("--top-k", "-1"), ("--seed", "1" + "0" * 30)])
def test_decoding_that_would_be_silently_wrong_is_refused(flag, value):
    with pytest.raises(ValueError, match="is not possible"):
        decoding_from_args(parse_args(["--run", "r", flag, value]), "en")


def test_a_sampled_answer_depends_on_its_question_alone():
    """It was seeded by its place in the list, so --limit changed it."""
    model, rows, decoding = randomise(hyper_model("hycora"), 0.05).double(), prompts(6), Decoding(6, temperature=1.0, seed=3)
    texts = generate_texts(model, Echo(), rows, [0, 1, 2, 3, 0, 1], decoding, batch_size=4)
    assert generate_texts(model, Echo(), rows[::-2], [1, 3, 1], decoding)[1:2] == texts[3:4]
    assert generate_texts(model, Echo(), rows[2:3], [2], decoding) == texts[2:3] != generate_texts(model, Echo(), rows[2:3], [2], Decoding(6, temperature=1.0))


def test_official_decoding_is_the_languages_and_flags_win():
    args = parse_args(["--run", "r", "--decode", "official", "--top-k", "7"])
    assert decoding_from_args(args, "zh") == Decoding(100, 0.95, 7, 0.7) and decoding_from_args(args, "en") == Decoding(512, 0.7, 7, 0.9)
    with pytest.raises(ValueError, match="one language"):
        decoding_from_args(args, "all")
    assert decoding_from_args(parse_args(["--run", "r", "--seed", "4"]), "all", 64) == Decoding(64, seed=4)
