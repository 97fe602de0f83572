"""watch.py: held-out likelihood beside a run that trains, and the warning of too few steps."""
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, records
from safetensors.torch import load_file

import train
import watch
from checkpoint import load_run
from config import Config
from data import Sample, load_test_samples
from likelihood import reference_nll
from selection import subsample
from watch import FEW_STEPS, HeldOut, contrast_never_starts, too_few_steps

ARGS = ["--language", "zh", "--max-steps", "4", "--score-limit", "5", "--max-new-tokens", "1", "--rank", "2", "--log-every", "1",
        "--adapter-dropout", "0.1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run twice, watched every two steps and not at all."""
    folder = tmp_path_factory.mktemp("runs")
    for name, every in (("watched", "2"), ("alone", "0")):
        train.run_training([*ARGS, "--test-every", every, "--out", str(folder / name)])
    return folder


def test_watching_changes_nothing_of_the_run(runs):
    watched, alone = (load_file(runs / name / "adapter.safetensors") for name in ("watched", "alone"))
    assert watched.keys() == alone.keys() and all(torch.equal(watched[name], alone[name]) for name in alone)
    assert not (runs / "alone/held_out.jsonl").exists()


def test_it_sees_the_likelihood_of_the_test_lines(runs):
    looks = records(runs / "watched/held_out.jsonl")
    assert [look["step"] for look in looks] == [2, 4]
    model, tokenizer, config = load_run(runs / "watched", "cpu")
    samples = subsample(load_test_samples(ROOT / "tiny/rolebench", "zh"), 5)
    nll, _ = reference_nll(model, tokenizer, config, [replace(s, answers=s.answers[:1]) for s in samples])
    assert looks[-1]["nats"] == pytest.approx(nll.mean().item(), abs=1e-3)


def watching(tmp_path, monkeypatch, nats, every=1):
    """A HeldOut whose looks find `nats`, one after the other."""
    found = iter(nats)
    monkeypatch.setattr(watch, "reference_nll", lambda *_: (torch.tensor([next(found), math.nan]), None))
    samples = [Sample("own", "A", f"{i}?", ("a",), "en") for i in range(100)]
    return HeldOut(torch.nn.Linear(1, 1), None, {}, samples, every, tmp_path)


def test_the_best_step_is_named(tmp_path, monkeypatch):
    held_out = watching(tmp_path, monkeypatch, [3.0, 2.0, 2.01, 2.5])
    assert len(held_out.samples) <= 32 and held_out.summary() is None
    assert held_out.look(1) == {"held out": "3.000", "best at": 1} and "best" not in held_out.summary()
    held_out.look(2)
    held_out.look(3)
    assert "by heart" not in held_out.summary()                                              # 2.01 is as good as 2.0
    assert held_out.look(4) == {"held out": "2.500", "best at": 2}
    assert "2.500 nats per token at step 4, but 2.000 at step 2" in held_out.summary() and "--max-steps 2" in held_out.summary()


def test_it_looks_every_so_many_steps_and_a_resumed_run_forgets_what_it_does_again(tmp_path, monkeypatch):
    held_out = watching(tmp_path, monkeypatch, [5.0, 4.0, 3.0], every=10)
    for step in (5, 9, 12, 15, 20, 29, 30):
        held_out.look(step)
    assert [look["step"] for look in held_out.looks] == [12, 20, 30]
    again = watching(tmp_path, monkeypatch, [1.0], every=10)
    assert again.summary() and again.look(20)["held out"] == "1.000" and [look["step"] for look in again.looks] == [12, 20]


def test_too_few_steps_are_said():
    assert too_few_steps(FEW_STEPS) is None and too_few_steps(1).startswith("1 step in all") and "15 steps" in too_few_steps(15)


@pytest.mark.parametrize("total, changes, warns", [(10, {}, True), (11, {}, True), (12, {}, False), (10, {"lambda_min": 0.1}, False), (10, {"lambda_max": 0.0}, False),
                                                   (10, {"lambda_start_epoch": 0.5}, False)])
def test_a_contrastive_loss_that_never_starts_is_said(total, changes, warns):
    """Ten steps an epoch: step 11 is the first after epoch 1 of which lambda is above 0."""
    cfg = Config(**{"lambda_start_epoch": 1.0} | changes)
    said = contrast_never_starts(SimpleNamespace(total=total, per_epoch=10), cfg)
    lam = [train.lambda_of_step(step, 10, total, SimpleNamespace(projections=1), cfg) for step in range(total)]
    assert (said is not None) == warns == (cfg.lambda_max > 0 and not any(lam))
