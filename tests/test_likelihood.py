"""likelihood.py: references read as the right role, as wrong ones and as none, against whole forward passes."""
import json
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, command, randomise, records
from test_layer import hyper_model

from data import Sample, load_profiles, load_rolebench, persona_of
from eval import evaluate
from generate import Decoding
from likelihood import aggregate_likelihood, lines_to_read, mean_roles, read_references, reference_nll
from metrics import bootstrap
from model import Transformer
from selection import role_shots, with_shots
from tokenizer import Tokenizer


def random_run(method="hycora", **config):
    """A random Hyper Model on the tiny backbone, its tokenizer, a run's config and the tiny test lines."""
    data, tokenizer = ROOT / "tiny/rolebench", Tokenizer(ROOT / "tiny/backbone")
    samples = load_rolebench(data, "all", "test")[::23]
    model = randomise(hyper_model(method, Transformer.from_pretrained(ROOT / "tiny/backbone"), num_roles=8), 0.02)
    roles = {name: i for i, name in enumerate(load_profiles(data, "all"))}
    return model, tokenizer, {"method": method, "out": "r", "data": "d", "language": "all", "seed": 3, "roles": roles, "max_length": 99, "pool": "last", "contrast_reader": "role",
                              "profiles": load_profiles(data, "all"), "role_in_prompt": method == "lora"} | config, samples


def nats_by_hand(model, tokenizer, sample, logits_of, persona=None):
    """Nats per token over all references of a sample; logits_of(ids (1, T)): (T, V)."""
    nats, tokens = 0.0, 0
    for answer in sample.answers:
        prompt = tokenizer.prompt(sample.question, persona, sample.history)
        target = tokenizer.encode(answer) + [tokenizer.stop_id]
        with torch.no_grad():
            logits = logits_of(torch.tensor([prompt + target]))[0, len(prompt) - 1:-1]
        nats += torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum").item()
        tokens += len(target)
    return nats / tokens


@pytest.mark.parametrize("method", ["hycora", "lora"])
def test_likelihood_is_the_cross_entropy_of_the_whole_forward_pass(method):
    model, tokenizer, config, samples = random_run(method)
    samples[1] = Sample(**vars(samples[1]) | {"answers": (*samples[1].answers, "Another answer, and a longer one, too.")})

    def by_hand(s, role):
        persona = persona_of(role, config["profiles"]) if method == "lora" else None
        return nats_by_hand(model, tokenizer, s, lambda ids: model(ids, torch.tensor([config["roles"][role]])), persona)
    nats, e_t = reference_nll(model, tokenizer, config, samples, batch_size=5)
    right = [by_hand(s, s.role) for s in samples]
    assert nats.tolist() == pytest.approx(right, rel=1e-4) and e_t.shape == (len(samples), 192)

    # as the wrong roles: the next two of the language
    roles_of = {language: list(dict.fromkeys(s.role for s in samples if s.language == language)) for language in ("en", "zh")}
    assert len(roles_of["zh"]) == 2                                          # only one other can be wrong there
    wrong = []
    for s in samples:
        names = roles_of[s.language]
        after = (names * 2)[names.index(s.role):][1:3]
        wrong.append([by_hand(s, other) for other in dict.fromkeys(after) if other != s.role])
    found, lines = read_references(model, tokenizer, config, samples, wrong=2)
    assert [line["right"] for line in lines] == pytest.approx(right, rel=1e-4)
    for line, expected in zip(lines, wrong):
        assert line["wrong"] == pytest.approx(expected, rel=1e-4)
    got = found["likelihood"]
    mean = sum(sum(w) / len(w) for w in wrong) / len(wrong)
    assert (got["right"], got["wrong"]) == pytest.approx((sum(right) / len(right), mean), rel=1e-4)
    assert got["chance"] == pytest.approx(sum(1 / (1 + len(w)) for w in wrong) / len(wrong))
    assert got["role_accuracy"] == pytest.approx(sum(r < min(w) for r, w in zip(right, wrong)) / len(right), abs=0.1)
    if method == "hycora":                                                   # answers read as the next role, by hand
        others = [(roles_of[s.language] * 2)[roles_of[s.language].index(s.role) + 1] for s in samples]
        _, e_t = reference_nll(model, tokenizer, config, [replace(s, role=other) for s, other in zip(samples, others)])
        with torch.no_grad():
            z_r, z_t = model.projections(model.hyper.role_embedding.weight, e_t)
        nearest = torch.cosine_similarity(z_t[:, None], z_r, dim=-1).argmax(1).tolist()
        share = [sum(config["roles"][name] == got for name, got in zip(names, nearest)) / len(samples) for names in (others, [s.role for s in samples])]
        assert list(found["retrieval_swapped"].values()) == pytest.approx(share)
    assert ("retrieval_top1" in found) == ("retrieval_swapped" in found) == (method == "hycora")


@pytest.mark.parametrize("method", ["hycora", "lora", "ind-lora", "neeko", "mrs-a-rsp-b"])
def test_the_zero_role_is_the_mean_of_the_roles_of_the_language_and_says_no_role(method):
    """By hand: the matrices from mean embeddings, or the mean of the roles' matrices, in the place of role 0's."""
    model, tokenizer, config, samples = random_run(method)
    samples = [s for s in samples if s.language == "en"][:3] + [s for s in samples if s.language == "zh"][:2]
    zero, _ = reference_nll(model, tokenizer, config, samples, zero=True)
    weights = mean_roles(samples, config["roles"])
    for i, s in enumerate(samples):
        ids = sorted({config["roles"][other.role] for other in samples if other.language == s.language})
        assert weights[i].nonzero().flatten().tolist() == ids and weights[i].sum() == pytest.approx(1)

        # what a role has of its own, averaged into role 0, and put back afterwards
        own = {"hyper.role_embedding.weight", "gate_inputs"}
        if method == "ind-lora":
            own |= {name for name in model.trainable() if name.endswith((".A", ".B"))}
        tensors = [p for name, p in [*model.named_parameters(), *model.named_buffers()] if name in own]
        before = [p.detach().clone() for p in tensors]
        with torch.no_grad():
            for p in tensors:
                p[0] = p[ids].mean(0)
            expected = nats_by_hand(model, tokenizer, s, lambda ids: model(ids, torch.tensor([0])))
            for p, old in zip(tensors, before):
                p.copy_(old)
        assert zero[i].item() == pytest.approx(expected, rel=1e-4) and bool(tensors) == (method != "lora")


def test_the_backbone_is_read_with_the_role_and_its_lines_in_the_prompt():
    model, tokenizer, config, samples = random_run()
    samples = [s for s in samples if s.language == "en"][:4]
    shots = {name: ((f"Are you {name}?", "I am."), ("Tea?", "Tea.")) for name in config["roles"]}
    found, lines = read_references(model, tokenizer, config, samples, backbone=True, shots=shots, wrong=1)
    names = list(dict.fromkeys(s.role for s in samples))
    for s, line in zip(samples, lines):
        other = names[(names.index(s.role) + 1) % len(names)]
        for role, got in ((s.role, line["right"]), (other, line["wrong"][0])):
            told = Sample(**vars(s) | {"history": shots[role]})
            assert got == pytest.approx(nats_by_hand(model, tokenizer, told, model.backbone, persona_of(role, config["profiles"])), rel=1e-4)
        assert line["zero"] == pytest.approx(nats_by_hand(model, tokenizer, s, model.backbone), rel=1e-4)
    assert "retrieval_top1" not in found


def test_shots_are_single_turns_of_the_role_spread_over_its_lines():
    lines = [Sample("general", "A", str(i), (f"a{i}", "x"), "en") for i in range(9)] + [Sample("general", "B", "q", ("b",), "en")]
    lines.insert(0, Sample("general", "A", "later", ("x",), "en", history=(("q", "a"),)))
    shots = role_shots(lines, 3)
    assert shots == {"A": (("0", "a0"), ("3", "a3"), ("6", "a6")), "B": (("q", "b"),)}
    assert with_shots(lines, shots)[0].history == (*shots["A"], ("q", "a"))
    assert with_shots(lines, {}) == lines


def test_the_prompt_of_an_answer_has_the_shots(monkeypatch):
    import eval as evaluation
    model, tokenizer, config, samples = random_run()
    seen = []
    monkeypatch.setattr(evaluation, "generate_texts", lambda model, tokenizer, prompts, *_: seen.extend(prompts) or [""] * len(prompts))
    shots = {samples[0].role: (("q", "a"),)}
    evaluate(model, tokenizer, config | {"model": "m"}, samples[:1], Decoding(3), None, shots=shots)
    assert seen == [tokenizer.prompt(samples[0].question, persona_of(samples[0].role, config["profiles"]), (("q", "a"),))]


def test_who_answers(monkeypatch):
    """As itself, as the next role of its language, as nobody: the ids, and whether the prompt says who."""
    import eval as evaluation
    model, tokenizer, config, samples = random_run()
    asked = []
    monkeypatch.setattr(evaluation, "generate_texts",
                        lambda model, tokenizer, prompts, role_ids, *_: asked.append((prompts, role_ids)) or [""] * len(prompts))
    evaluate(model, tokenizer, config | {"model": "m"}, samples, Decoding(3), "own", swap=True)
    evaluate(model, tokenizer, config | {"model": "m"}, samples, Decoding(3), None)
    (plain, own), (swapped, other), (told, nobody) = asked
    names = {language: list(dict.fromkeys(s.role for s in samples if s.language == language)) for language in ("en", "zh")}
    after = [(names[s.language] * 2)[names[s.language].index(s.role) + 1] for s in samples]
    assert own == [config["roles"][s.role] for s in samples] and other == [config["roles"][name] for name in after] and nobody is None
    assert plain == swapped == [tokenizer.prompt(s.question, None, s.history) for s in samples]
    assert told == [tokenizer.prompt(s.question, persona_of(s.role, config["profiles"]), s.history) for s in samples]


def test_means_and_intervals_by_hand():
    lines = [{"split": "g", "right": 1.0, "wrong": [2.0, 4.0], "zero": 1.5}, {"split": "g", "right": 3.0, "wrong": [2.0, 5.0], "zero": 3.5},
             {"split": "r", "right": 5.0, "wrong": [], "zero": 5.0}]
    found = aggregate_likelihood(lines)
    assert (found["n"], found["right"], found["wrong"], found["zero"]) == (3, 3.0, 3.25, 10 / 3)
    assert found["role_accuracy"] == 0.5 and found["chance"] == pytest.approx(1 / 3)         # the likeliest of the wrong roles decides
    assert found["interval"] == {"right": bootstrap([1, 3, 5]), "zero - right": bootstrap([0.5, 0.5, 0]), "wrong - right": bootstrap([2, 0.5])}
    assert found["splits"]["g"]["zero"] == 2.5 and "wrong" not in found["splits"]["r"]


def test_what_leaves_no_room_is_left_out(capsys):
    model, tokenizer, config, samples = random_run()
    samples = samples[:2]
    samples[0] = Sample(**vars(samples[0]) | {"question": "tea " * 3000})
    found, lines = read_references(model, tokenizer, config, samples)
    assert len(lines) == found["likelihood"]["n"] == 1 and lines[0]["question"] == samples[1].question
    assert read_references(model, tokenizer, config, samples[:1])[1] == []                   # not even one: nothing to say

    # asked, its answer is empty, and everything else is scored
    scores, predictions = evaluate(model, tokenizer, config | {"model": "m"}, samples, Decoding(3))
    assert [p["answer"] == "" for p in predictions] == [True, False] and "no room for an answer to 1 prompt of 2" in capsys.readouterr().out


def test_eval_writes_what_was_read(tmp_path):
    """A run, then its backbone with examples: beside each other, and in the table."""
    run = tmp_path / "run"
    command("train", "--max-steps", "1", "--score-limit", "2", "--likelihood-limit", "4", "--max-new-tokens", "2", "--rank", "2",
            "--language", "zh", "--device", "cpu", "--out", run)
    lines = records(run / "likelihood.jsonl")
    assert len(lines) == 8 == json.loads((run / "scores.json").read_text())["likelihood"]["n"]
    assert len((run / "predictions.jsonl").read_text("utf8").splitlines()) == 4

    out = tmp_path / "x.json"
    done = command("eval", "--run", run, "--backbone", "--shots", "2", "--likelihood", "--limit", "2", "--max-new-tokens", "2", "--out", out)
    assert "with 2 examples of the role" in done.stdout and "nats per token" in done.stdout
    assert out.with_suffix(".likelihood.jsonl").is_file() and "retrieval_top1" not in json.loads(out.read_text())

    before = sorted(run.iterdir())
    done = command("eval", "--run", run, "--backbone", "--shots", "1", "--limit", "1", "--max-new-tokens", "1")
    assert "nothing written: --out FILE.json keeps it" in done.stdout and sorted(run.iterdir()) == before


@pytest.mark.parametrize("reader", ["other", "backbone"])
def test_e_t_is_read_as_in_training(reader):
    """Read by nobody, e_t is the same for every role that the answer is given to; the likelihood stays the role's."""
    model, tokenizer, config, samples = random_run()
    as_paper, _ = reference_nll(model, tokenizer, config, samples)
    nats, e_t = reference_nll(model, tokenizer, config | {"contrast_reader": reader}, samples)
    assert torch.equal(nats, as_paper)

    names = list(config["roles"])
    others = [replace(s, role=names[config["roles"][s.role] - 7 if reader == "other" else 0]) for s in samples]
    if reader == "other":
        _, expected = reference_nll(model, tokenizer, config, others)        # the next role by id
    else:
        _, expected = reference_nll(model, tokenizer, config | {"contrast_reader": reader}, others)
    torch.testing.assert_close(e_t, expected)


@pytest.mark.parametrize(("limit", "answered", "read"), [(0, 20, 20), (0, 500, 50), (30, 500, 30), (10_000, 5, 10_000), (0, 0, 0)])
def test_training_reads_as_many_lines_as_it_answers_up_to_50_unless_told(limit, answered, read):
    assert lines_to_read({"likelihood_limit": limit, "score_limit": answered}) == read
