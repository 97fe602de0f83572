"""train.py: gradients, schedules, configuration, and runs that are killed, resumed, refused."""
import copy
import dataclasses
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, command, randomise, records, small_backbone, write_rolebench
from safetensors.torch import load_file
from test_layer import hyper_model
from test_tools import CHATGLM2, LLAMA2, QWEN2

import checkpoint
import files
import prepare
import train
from batches import Steps, batch_order, collate
from config import Config, resolve
from data import Example
from files import write_jsonl
from hycora_layer import METHODS, AdapterConfig
from losses import hyper_contrastive_loss
from model import ModelConfig
from prepare import read_arguments
from selection import split_names
from tools.params import count

SMALL = ["--role-dim", "8", "--layer-dim", "8", "--hidden-dim", "16", "--head-rank", "4", "--rank", "2", "--batch-size", "4",
         "--role-subset", "3", "--log-every", "1", "--score-limit", "0"]


def run(*args, script="train", **kwargs):
    return command(script, *args, **kwargs)


def start(*args):
    """A training in a process of its own, with as many threads as this one."""
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen([sys.executable, "train.py", *map(str, args)], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(n=8):
    return [Example(torch.randint(97, (random.randint(6, 20),)).tolist(), random.randint(1, 5), i % 4) for i in range(n)]


def gradients(model, batches, lam=0.0, **changes):
    cfg = Config(**changes)
    model.zero_grad()
    sums = train.backward(model, batches, cfg, lam, torch.amp.GradScaler("cpu", enabled=False))
    return sums, {n: p.grad.clone() for n, p in model.trainable().items() if p.grad is not None}


# -------------------------------------------------------------------------------------------------------- gradients
@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_everything_equal_finite_differences(method):
    """Eq. 1-7 together, in float64, one random direction for each trainable tensor. With steps of 1e-6 a ReLU crossed its kink now and then."""
    model = randomise(hyper_model(method, small_backbone().double()), 0.1).double()
    batch, lam = collate(rows(5), 0), 0.3 if model.projections is not None else 0.0
    _, grads = gradients(model, [batch], lam)
    assert grads.keys() == model.trainable().keys()

    def loss():
        ce, contrastive = train.backward(model, [batch], Config(), lam, torch.amp.GradScaler("cpu", enabled=False))
        return (ce + lam * contrastive).item()
    for name, p in model.trainable().items():
        direction, values = torch.randn_like(p), []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(direction, alpha=sign * 1e-8)
            values.append(loss())
            with torch.no_grad():
                p.sub_(direction, alpha=sign * 1e-8)
        expected = (grads[name] * direction).sum().item()
        assert (values[0] - values[1]) / 2e-8 == pytest.approx(expected, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("schedule, anchor, pool, tau", [("linear", "role", "last", 0.1), ("cosine", "response", "before_eos", 0.3), ("linear", "role", "mean", 1.0)])
def test_the_loop_is_a_plain_one_written_again(schedule, anchor, pool, tau, tmp_path):
    """Six steps of `fit` in float64, beside a loop without padding: the loss per supervised token of the step, Eq. 7 of each micro-batch,
    lambda by epochs, the learning rate of the step, clipping, AdamW with weight decay."""
    cfg = Config(batch_size=3, grad_accum=2, epochs=2, lr=0.05, warmup_ratio=0.34, weight_decay=0.1, max_grad_norm=0.5, log_every=1,
                 lambda_start_epoch=0.5, lambda_max=0.4, lambda_schedule=schedule, contrast_anchor=anchor, pool=pool, tau=tau)
    examples = rows(16)
    model = randomise(hyper_model("hycora", small_backbone().double(), adapter_dropout=0.0), 0.1).double()
    plain = copy.deepcopy(model).train()
    steps_of_run = Steps(examples, cfg, 0)
    assert (steps_of_run.per_epoch, steps_of_run.total) == (3, 6) and train.fit(model, steps_of_run, cfg, tmp_path, False)

    params = plain.trainable()
    optimizer = torch.optim.AdamW(params.values(), weight_decay=0.1)
    for step, line in enumerate(records(tmp_path / "metrics.jsonl")):
        order = batch_order(examples, 3, cfg.seed, step // 3)
        micro_batches = [[examples[i] for i in batch] for batch in order[2 * (step % 3):][:2]]
        tokens = sum(len(e.ids) - e.prompt_len for batch in micro_batches for e in batch)
        ce, contrastive = 0, 0
        for batch in micro_batches:
            e_t = []
            for e in batch:
                with plain.active_roles(torch.tensor([e.role_id])):
                    hidden = plain.backbone.hidden_states(torch.tensor([e.ids]))[0]
                logits = plain.backbone.lm_head(hidden)[e.prompt_len - 1:-1]
                ce = ce + F.cross_entropy(logits, torch.tensor(e.ids[e.prompt_len:]), reduction="sum") / tokens
                response = hidden[e.prompt_len:]                         # its last token is the stop
                e_t.append({"last": response[-1], "before_eos": response[max(-2, -len(response))], "mean": response.mean(0)}[pool])
            role_ids = torch.tensor([e.role_id for e in batch])
            z_r, z_t = plain.projections(plain.hyper.role_embedding(role_ids), torch.stack(e_t))
            cosine = F.cosine_similarity(z_r[:, None], z_t[None], dim=-1)
            log_p = ((cosine if anchor == "role" else cosine.T) / tau).log_softmax(1)
            same = role_ids[:, None] == role_ids
            contrastive = contrastive - torch.stack([log_p[i, same[i]].mean() for i in range(len(batch))]).mean() / len(micro_batches)

        ramp = max(0, (step / 3 - 0.5) / (2 - 0.5))
        lam = 0.4 * (ramp if schedule == "linear" else (1 - math.cos(math.pi * ramp)) / 2)
        assert line["lambda"] == pytest.approx(lam) and line["ce"] == pytest.approx(ce.item(), rel=1e-5)
        optimizer.zero_grad()
        (ce + lam * contrastive if lam else ce).backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), 0.5)
        assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-4) and norm > 0.5
        optimizer.param_groups[0]["lr"] = [0.025, 0.05, 0.05, 0.05 * (2 + 2 ** 0.5) / 4, 0.025, 0.05 * (2 - 2 ** 0.5) / 4][step]   # warm-up, cosine
        optimizer.step()
    for name, p in model.trainable().items():
        torch.testing.assert_close(p, params[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("reader", ["other", "backbone"])
def test_responses_read_by_another_role_or_by_nobody(reader):
    """e_t then says nothing of the role's own A: the contrastive loss reaches role embeddings and projections alone."""
    model = randomise(hyper_model("hycora", small_backbone().double()), 0.1).double()
    batch = collate(rows(6), 0)
    sums, with_both = gradients(model, [batch], 0.3, contrast_reader=reader)
    _, ce_alone = gradients(model, [batch], 0.0)

    # the loss by hand
    ids, role_ids = batch.input_ids, batch.role_ids
    with torch.no_grad():
        if reader == "backbone":
            hidden = model.backbone.hidden_states(ids)
        else:
            with model.active_roles((role_ids + 1) % model.config.num_roles):
                hidden = model.backbone.hidden_states(ids)
        e_t = hidden[batch.pooled_rows, batch.pooled % ids.shape[1]]
        z_r, z_t = model.projections(model.hyper.role_embedding(role_ids), e_t)
        expected = hyper_contrastive_loss(z_r, z_t, role_ids, Config().tau)
    torch.testing.assert_close(sums[1].double(), expected.double(), rtol=1e-6, atol=1e-8)

    changed = {name for name, grad in with_both.items() if name not in ce_alone or not torch.equal(grad, ce_alone[name])}
    assert changed == {"hyper.role_embedding.weight", *(name for name in with_both if name.startswith("projections"))}


@pytest.mark.parametrize("method", ["hycora", "lora"])
def test_one_by_four_accumulated_equals_four_by_one(method):
    model, samples = randomise(hyper_model(method), 0.05), rows(4)
    whole, one = gradients(model, [collate(samples, 0)]), gradients(model, [collate([s], 0) for s in samples])
    torch.testing.assert_close(whole[0], one[0])
    for name, g in whole[1].items():
        torch.testing.assert_close(g, one[1][name], rtol=1e-3, atol=1e-6)


def test_the_contrastive_set_is_the_micro_batch():
    model, samples = randomise(hyper_model("hycora"), 0.05), rows(8)
    halves = [collate(samples[:4], 0), collate(samples[4:], 0)]
    both = gradients(model, halves, lam=0.3)[0][1]
    each = [gradients(model, [h], lam=0.3)[0][1] for h in halves]
    assert both.item() == pytest.approx(sum(each).item() / 2, rel=1e-5)


def test_padding_and_activation_checkpointing_change_nothing():
    model, samples = randomise(hyper_model("hycora"), 0.05), rows(4)
    plain = gradients(model, [collate(samples, 0)], lam=0.3)
    model.backbone.checkpoint_activations = True
    for other in (gradients(model, [collate(samples, 0)], lam=0.3), gradients(model, [collate(samples, 77)], lam=0.3)):
        torch.testing.assert_close(plain[0], other[0])
        for name, g in plain[1].items():
            torch.testing.assert_close(g, other[1][name], rtol=1e-3, atol=1e-6)


def test_blocks_compile_once_not_per_layer():
    """Two graphs, since the first block's input needs no gradient, for six blocks and batches of any shape.

    The lengths are no width of the model: sizes that happen to be equal are taken for one, which costs a graph each.
    """
    from torch._dynamo.utils import counters
    torch._dynamo.reset()
    counters.clear()
    model = randomise(hyper_model("hycora", small_backbone(num_hidden_layers=6)), 0.05)
    batches = [collate([Example(torch.randint(97, (T,)).tolist(), 3, i % 4) for i in range(n)], 0) for n, T in ((3, 11), (5, 19), (8, 13))]
    plain = gradients(model, batches, lam=0.3)
    model.backbone.compile_blocks(backend="eager")
    compiled = gradients(model, batches, lam=0.3)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    for name, g in plain[1].items():
        torch.testing.assert_close(g, compiled[1][name], rtol=1e-3, atol=1e-6)


def test_learning_rate_is_transformers_cosine_with_warmup():
    transformers = pytest.importorskip("transformers")
    cfg, p = Config(lr=3e-4, warmup_ratio=0.1), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=3e-4)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 20, 200)
    for step in range(200):
        if step >= 20:                                    # theirs wastes its first step on a rate of 0
            assert train.lr_at(step, 200, cfg) == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        schedule.step()
    assert [train.lr_at(s, 200, cfg) for s in (0, 9, 19)] == pytest.approx([3e-4 / 20, 1.5e-4, 3e-4])


# ---------------------------------------------------------------------------------------------------- configuration
@pytest.mark.parametrize("args, message", [
    (["--no-such-key", "1"], "--no-such-key"), (["--rank", "eight"], "rank cannot be 'eight'"), (["--rank", "2.5"], "rank"),
    (["--method", "adapters"], "choose hycora"), (["--model", "somewhere"], "both --model and --data"),
    (["--resume", "tests"], "not a run folder"), (["--config", "configs/none.json"], "No such file"),
    (["--model", "tiny/backbone", "--data", "nowhere/at-all"], "nowhere/at-all: no such folder"),
    (["--model", "no/model", "--data", "tiny/rolebench"], "no/model: no such folder"),
    (["--device", "gpu"], "device 'gpu' cannot be used"), (["--max-steps", "inf"], "max_steps"), (["--lr", "nan"], "lr is nan"),
    (["--adapter-dropout", "1.5"], "adapter_dropout is 1.5, but it has to be a number from 0 to 0.99"), (["--role-subset", "0"], "leaves no role"), (["--config", "LOOP"], "has to name another file"),
    (["--batch-size", "2", "--balance-roles"], "balance_roles needs batches of at least 4"),
    (["--role-subset", "Long Jon Silver"], "did you mean Long John Silver"), (["--compile", "maybe"], "compile"),
])
def test_bad_command_lines_get_one_clear_line(args, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "loop.json").write_text('{"extends": "loop.json"}')
    args = [str(tmp_path / "loop.json") if arg == "LOOP" else arg for arg in args]
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path / "r"), *args] if "--resume" not in args else ["train.py", *args])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert message in str(stop.value.code) and "\n" not in str(stop.value.code)
    assert not (tmp_path / "r").exists()


def test_bad_config_files_name_file_and_key(tmp_path):
    path = tmp_path / "c.json"
    for text, message in (('{"lrr": 1}', "no key 'lrr'; did you mean 'lr'"), ("{", "c.json: not JSON"), ('{"seed": true}', "seed cannot be True"), ("[1]", "a JSON object"),
                          ('{"rank": 0}', "rank is 0, but it has to be a whole number from 1 to 1e\\+06"), ('{"max_steps": -1}', "a whole number from 0")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_arguments(["--config", str(path)])


@pytest.mark.parametrize("text", ['{"lr": true}', '{"out": null}', '{"rank": true}', '{"epochs": false}', '{"template": null}', '{"role_subset": true}'])
def test_flags_and_null_are_no_numbers_and_no_texts(text, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be (True|False|None)"):
        read_arguments(["--config", str(tmp_path / "c.json")])


def test_a_size_is_one_to_a_million():
    assert [read_arguments(["--rank", str(rank)])[0].rank for rank in (1, 10 ** 6)] == [1, 10 ** 6]
    for rank in (0, 10 ** 6 + 1):
        with pytest.raises(ValueError, match=f"rank is {rank}"):
            read_arguments(["--rank", str(rank)])


def test_command_line_wins_over_file_wins_over_default(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"model": "m", "data": "d", "rank": 2, "lr": 1, "target_modules": ["q_proj"], "role_in_prompt": null, '
                    '"role_subset": ["Anne, Queen", "2"]}')
    cfg, _ = read_arguments(["--config", str(path), "--rank", "3", "--norm-input", "false", "--compile"])
    assert split_names(cfg.role_subset) == ["Anne, Queen", "2"]
    assert (cfg.rank, cfg.lr, cfg.alpha, cfg.target_modules, cfg.norm_input, cfg.compile) == (3, 1.0, 32.0, ("q_proj",), False, True)
    assert read_arguments(["--config", str(path), "--target-modules", "a, b"])[0].target_modules == ("a", "b")
    in_prompt = {m: resolve(Config(method=m)).role_in_prompt for m in METHODS}
    assert in_prompt == {m: m == "lora" for m in METHODS}


def test_config_files_extend_one_another_and_may_group_their_keys(tmp_path):
    (tmp_path / "base.json").write_text('{"from here": {"model": "m", "lr": 1}, "from there": {"data": "d", "rank": 2}}')
    (tmp_path / "c.json").write_text('{"extends": "base.json", "mine": {"rank": 3}, "alpha": 5}')
    cfg, _ = read_arguments(["--config", str(tmp_path / "c.json"), "--lr", "7"])
    assert (cfg.model, cfg.data, cfg.lr, cfg.rank, cfg.alpha) == ("m", "d", 7, 3, 5)
    (tmp_path / "c.json").write_text('{"extends": "gone.json"}')
    with pytest.raises(OSError, match="gone.json"):
        read_arguments(["--config", str(tmp_path / "c.json")])


SMOLLM2 = dict(model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
               num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, rope_theta=100000)
QWEN25 = dict(model_type="qwen2", vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
              num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True)
BACKBONES = {"THUDM/chatglm2-6b": (CHATGLM2, 5), "Qwen/Qwen2-7B": (QWEN2, 5), "Qwen/Qwen2.5-7B": (QWEN2, 5), "meta-llama/Llama-2-7b-hf": (LLAMA2, 95),
             "HuggingFaceTB/SmolLM2-135M-Instruct": (SMOLLM2, 95), "Qwen/Qwen2.5-0.5B-Instruct": (QWEN25, 5)}
COUNTS = {"chatglm2-6b-zh": 16.83, "chatglm2-6b-zh-wo-hcl": 16.83, "chatglm2-6b-zh-lora": 14.82, "chatglm2-6b-zh-rsp-a-rsp-b": 17.21,
          "chatglm2-6b-zh-mrs-a-rsp-b": 16.94, "qwen2-7b-zh": 22.30, "qwen2-7b-zh-lora": 20.19, "qwen2-7b-zh-ind-lora": 100.93, "qwen2-7b-zh-neeko": 101.93,
          "qwen2.5-7b-zh": 22.30, "qwen2.5-7b-zh-lora": 20.19, "llama2-7b-en": 21.21, "llama2-7b-en-lora": 19.99,          # millions; ours follow
          "tiny": 0.735, "smollm2-135m-en": None, "qwen2.5-0.5b-zh": None}
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.json") if path.stem != "few-lines")


def test_the_paper_has_these_rows():
    assert {p.stem for p in CONFIGS} == {
        "tiny", "smollm2-135m-en", "qwen2.5-0.5b-zh", "chatglm2-6b-zh", "chatglm2-6b-zh-lora", "chatglm2-6b-zh-wo-hcl", "chatglm2-6b-zh-rsp-a-rsp-b",
        "chatglm2-6b-zh-mrs-a-rsp-b", "qwen2-7b-zh", "qwen2-7b-zh-lora", "qwen2-7b-zh-ind-lora", "qwen2-7b-zh-neeko", "qwen2.5-7b-zh",
        "qwen2.5-7b-zh-lora", "llama2-7b-en", "llama2-7b-en-lora"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_file_makes_its_model(path):
    cfg, _ = read_arguments(["--config", str(path)])
    folder = ROOT / cfg.model / "config.json"
    architecture, roles = (json.loads(folder.read_text()), 8) if folder.is_file() else BACKBONES[cfg.model]
    adapter = AdapterConfig(**{f.name: getattr(cfg, f.name) for f in dataclasses.fields(AdapterConfig)} | {"num_roles": roles})
    trainable, linears = count(ModelConfig.from_hf(architecture), adapter)
    expected = COUNTS[path.stem]
    assert linears > 20 and (expected is None or trainable / 1e6 == pytest.approx(expected, abs=0.011))
    if path.stem != "tiny":
        assert (cfg.out, cfg.data) == (f"runs/{path.stem}", "ZenMoore/RoleBench") and path.stem.endswith(cfg.language) == (cfg.method == "hycora" and cfg.lambda_max > 0)
        groups = json.loads(path.read_text())
        assert set(groups.pop("the paper", {})) <= {"model", "data", "language", "method", "lambda_max"}
        assert all(key == "extends" or "ours" in key or "authors' code" in key for key in groups)


def test_the_settings_for_few_lines_are_for_any_file():
    path = str(ROOT / "configs/few-lines.json")
    cfg, _ = read_arguments(["--config", path, "--data", "mine.jsonl"])
    assert (cfg.data, cfg.language, cfg.out) == ("mine.jsonl", "en", "runs/few-lines") and cfg.max_steps % cfg.save_every == 0
    with pytest.raises(ValueError, match="--model and --data"):
        read_arguments(["--config", path])

    # who asks for epochs gets them: the file's number of steps gives way
    cfg, _ = read_arguments(["--config", path, "--data", "mine.jsonl", "--epochs", "2"])
    assert (cfg.epochs, cfg.max_steps) == (2, 0)
    cfg, _ = read_arguments(["--config", path, "--data", "mine.jsonl", "--epochs", "2", "--max-steps", "9"])
    assert (cfg.epochs, cfg.max_steps) == (2, 9)


def test_broken_data_stops_before_a_run_folder_is_made(tmp_path):
    path = write_rolebench(tmp_path, [("A", "q", ["x"])])
    path.write_text(path.read_text() + '{"role": "A", "question": "q", "generated": [""]}\n')
    done = run("--model", "tiny/backbone", "--data", tmp_path, "--score-limit", "0", "--out", tmp_path / "r", ok=False)
    assert f"{path}:2: empty answer" in done.stderr and len(done.stderr.splitlines()) == 1 and not (tmp_path / "r").exists()


def test_a_test_line_about_an_unknown_role_is_refused(tmp_path):
    write_rolebench(tmp_path, [("A", "q", ["x"])])
    write_rolebench(tmp_path, [("A", "q2", ["x"]), ("Bb", "q2", ["x"])], part="test")
    done = run("--model", "tiny/backbone", "--data", tmp_path, "--out", tmp_path / "r", ok=False)
    assert "roles that training does not have" in done.stderr and "Bb" in done.stderr and not (tmp_path / "r").exists()


# ------------------------------------------------------------------------------------------------------------- runs
def steps(folder):
    return [line["step"] for line in records(folder / "metrics.jsonl")]


def test_lora_with_the_role_in_the_prompt_plays_roles_that_training_never_saw(tmp_path):
    """English RoleBench's role generalization, with everything else that data can bring: answers, balance, counts."""
    def write(lines, part):
        path = tmp_path / "data/rolebench-eng/role-generalization/general" / f"{part}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, [{"role": r, "question": q, "generated": a} for r, q, a in lines])
    write([(role, f"What is {n}?", [f"{n}", f"It is {n}."]) for role in "AB" for n in range(9)], "train")
    write([("C", "What is 3?", ["3"])], "test")
    (tmp_path / "data/profiles-eng").mkdir()
    (tmp_path / "data/profiles-eng/desc.json").write_text('{"A": "One.", "B": "Two.", "C": "Three."}')
    args = ["--model", "tiny/backbone", "--data", tmp_path / "data", "--generalization", "role", "--epochs", "2", "--batch-size", "4",
            "--answers", "sampled", "--balance-roles", "--max-new-tokens", "4", "--rank", "2"]
    out = run(*args, "--method", "lora", "--out", tmp_path / "lora").stdout
    assert "36 examples, 16 of them an epoch, in 4 steps" in out and "% padding); 8 steps" in out
    assert [p["role"] for p in records(tmp_path / "lora/predictions.jsonl")] == ["C"]
    for line in records(tmp_path / "lora/metrics.jsonl"):
        assert line["roles"] == 2 and line["positives"] >= 2 and line["negatives"] >= 4
    run(*args, "--answers", "first", "--method", "lora", "--max-steps", "1", "--score-limit", "0", "--out", tmp_path / "first")
    assert "18 examples, 16 of them" in run("--resume", tmp_path / "first").stdout
    assert "roles that training does not have: C" in run(*args, "--out", tmp_path / "h", ok=False).stderr


def test_kill_minus_nine_resumes_to_the_same_bits(tmp_path):
    args = [*SMALL, "--max-steps", "60", "--save-every", "3", "--adapter-dropout", "0.1", "--lambda-start-epoch", "0"]
    run(*args, "--out", tmp_path / "whole")
    killed = tmp_path / "killed"
    process = start(*args, "--out", killed)

    def last_checkpoint():
        return max((int(path.stem) for path in killed.glob("checkpoint/*.json")), default=0)
    for n in range(2):                                    # killed, resumed, killed again, resumed to the end
        goal = last_checkpoint() + 9
        writing = False                                   # the second time in the middle of writing a checkpoint, if it is seen
        while process.poll() is None and last_checkpoint() < goal and not writing:
            time.sleep(0.001)
            writing = n == 1 and any(killed.glob("checkpoint/*.tmp"))
        time.sleep(0 if writing else random.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if n == 0:
            process = start("--resume", killed)
    run("--resume", killed)
    a, b = load_file(tmp_path / "whole/adapter.safetensors"), load_file(killed / "adapter.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert steps(tmp_path / "whole") == steps(killed) == list(range(60))
    assert len(list(killed.glob("checkpoint/*.safetensors"))) == 2


def test_sigterm_checkpoints_and_broken_checkpoints_are_passed_over(tmp_path):
    out = tmp_path / "r"

    def terminate():
        while len(list(out.glob("checkpoint/*.json"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=terminate, daemon=True).start()
    assert f"--resume {out}" in run(*SMALL, "--max-steps", "9999", "--save-every", "2", "--out", out).stdout
    old, new = sorted(out.glob("checkpoint/*.safetensors"))
    assert steps(out) == list(range(int(new.stem)))
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"max_steps": int(new.stem) + 2}))
    new.write_bytes(new.read_bytes()[:-100])
    done = run("--resume", out)
    assert f"{new} is broken" in done.stdout and f"from step {int(old.stem)}" in done.stdout
    assert steps(out) == list(range(int(new.stem) + 2))
    (out / "config.json").write_text(json.dumps(config | {"max_steps": int(new.stem) + 4, "rank": 5}))
    done = run("--resume", out, ok=False)
    assert "was started with other keys" in done.stderr and len(done.stderr.splitlines()) == 1


def test_training_moves_everything_but_the_backbone(tmp_path):
    before = load_file(ROOT / "tiny/backbone/model.safetensors")
    out = tmp_path / "r"
    run(*SMALL, "--max-steps", "30", "--lambda-start-epoch", "0", "--lr", "0.01", "--out", out)
    model, _, config = checkpoint.load_run(out)
    for name, tensor in before.items():
        owner, leaf = name.rsplit(".", 1)
        linear = name.replace("_proj.", "_proj.base.")
        mine = model.backbone.get_parameter(linear) if "_proj." in name else model.backbone.get_parameter(name)
        assert torch.equal(mine, tensor.float()), (owner, leaf)
    torch.manual_seed(config["seed"])
    fresh, _ = checkpoint.build(config, 3, "cpu")
    start, end = fresh.trainable(), model.trainable()
    assert load_file(out / "adapter.safetensors").keys() == end.keys()
    assert all(not torch.equal(start[n], end[n]) for n in end)
    lines = records(out / "metrics.jsonl")
    assert lines[0].keys() >= {"step", "epoch", "loss", "ce", "contrastive", "lambda", "lr", "grad_norm", "tokens_per_s"}
    assert sum(line["ce"] for line in lines[-5:]) < 0.8 * sum(line["ce"] for line in lines[:5])


def torchrun(processes, *args, **kwargs):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "train.py", *map(str, args)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}              # an abort then says where
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, **kwargs)


def test_two_processes_reach_the_weights_of_one_with_twice_the_batches(tmp_path):
    """gloo on the CPU, HCL on, an epoch whose last step leaves one of them without rows; one process alone cannot go on with it."""
    args = [*SMALL, "--max-steps", "13", "--adapter-dropout", "0", "--batch-size", "21", "--lambda-start-epoch", "0", "--save-every", "7"]
    done = torchrun(2, *args, "--out", tmp_path / "two")
    assert done.returncode == 0 and done.stdout.count("trainable in all") == 1, done.stderr[-2000:]
    run(*args, "--grad-accum", "2", "--out", tmp_path / "one")
    one, two = (load_file(tmp_path / name / "adapter.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")
    lines = [records(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == 13
    for a, b in zip(*lines):
        for key in ("ce", "contrastive", "lambda", "grad_norm", "tokens", "positives", "negatives", "roles", "floor", "epoch"):
            assert (a[key] or 0) == pytest.approx(b[key] or 0, rel=1e-3, abs=1e-5), (key, a["step"])
    refused = run("--resume", tmp_path / "two", ok=False).stderr
    assert "2 processes" in refused and "torchrun --nproc_per_node 2" in refused


def test_two_processes_resume_to_the_same_bits(tmp_path):
    """With dropout, so that each process needs its own random state back."""
    args = [*SMALL, "--max-steps", "12", "--save-every", "4", "--method", "lora", "--adapter-dropout", "0.1"]
    done = torchrun(2, *args, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr[-4000:]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for file in ("adapter.safetensors", "checkpoint/00000012.safetensors", "checkpoint/00000012.json"):
        (tmp_path / "cut" / file).unlink()
    done = torchrun(2, "--resume", tmp_path / "cut")
    assert done.returncode == 0, done.stderr[-4000:]
    whole, cut = (load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole) and steps(tmp_path / "cut") == list(range(12))


def test_bad_input_under_torchrun_gets_its_line_once():
    done = torchrun(2, "--role-subset", "Nobody at all")
    assert done.returncode != 0 and done.stderr.count("train.py: unknown role") == 1


@pytest.mark.parametrize("full_at, ends_with", [(2, "00000006.safetensors cannot be written"), (4, "adapter.safetensors cannot be written")])
def test_a_full_disk_loses_what_is_being_written_and_nothing_else(full_at, ends_with, tmp_path, monkeypatch):
    """A file-size limit stands in for the disk: the second checkpoint, or the adapter at the end, is not allowed to be as large as it is."""
    args = [*SMALL, "--max-steps", "9", "--save-every", "3", "--method", "lora", "--adapter-dropout", "0"]
    whole, full = tmp_path / "whole", tmp_path / "full"
    original, count = files.save_file, []

    def save_file(*args):
        count.append(1)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if len(count) == full_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50000, limits[1]))
        try:
            original(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(*args, "--out", whole)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(files, "save_file", save_file)
    done = run(*args, "--out", full, ok=False)
    signal.signal(signal.SIGXFSZ, before)
    assert ends_with in done.stderr and f"go on with python train.py --resume {full}" in done.stderr and "Traceback" not in done.stderr
    assert not (full / "adapter.safetensors").exists() and not list(full.glob("**/*.tmp"))
    names = sorted(p.stem for p in (full / "checkpoint").glob("*.json"))
    assert names == (["00000003"] if full_at == 2 else ["00000006", "00000009"])
    run("--resume", full)
    assert (whole / "adapter.safetensors").read_bytes() == (full / "adapter.safetensors").read_bytes() and steps(full) == list(range(9))


def test_a_run_that_is_trained_is_not_resumed_by_another_process(tmp_path):
    """Both wrote, and metrics.jsonl had steps twice."""
    out = tmp_path / "r"
    run(*SMALL, "--max-steps", "2", "--out", out)
    for half_written in (out / ".a.tmp", out / "checkpoint/.b.tmp"):
        half_written.write_text("by a run that was killed")
    with checkpoint.reserved(out):
        assert "in use by another process" in run("--resume", out, ok=False).stderr
    run("--resume", out)
    assert not list(out.rglob("*.tmp"))


def test_the_same_command_writes_the_same_bytes(tmp_path):
    """One header in two orders was seen."""
    for name in "ab":
        run("--max-steps", "2", "--score-limit", "3", "--max-new-tokens", "4", "--save-every", "1", "--role-subset", "3", "--out", tmp_path / name / "run")
    for file in sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").glob("**/*") if p.is_file()):
        texts = [(tmp_path / name / file).read_bytes().replace(f"{tmp_path}/{name}/".encode(), b"") for name in "ab"]
        if file.name == "metrics.jsonl":                                 # but for the speed
            texts = [re.sub(rb'"tokens_per_s": [\d.]+', b"", text) for text in texts]
        assert texts[0] == texts[1], file


def test_a_seed_decides_about_the_weights_and_the_batches(tmp_path):
    """At a learning rate of nothing, the weights are those that a run began with."""
    for seed in "78":
        run(*SMALL, "--max-steps", "1", "--lr", "1e-12", "--seed", seed, "--out", tmp_path / seed)
    a, b = (load_file(tmp_path / seed / "adapter.safetensors") for seed in "78")
    for name in a:                                                       # all but zeros (B, biases) and ones (norms)
        assert torch.allclose(a[name], b[name], atol=1e-3) == (a[name].round().unique().numel() == 1 and a[name].std() < 1e-6), name
    first = [records(tmp_path / seed / "metrics.jsonl")[0] for seed in "78"]
    assert first[0]["ce"] != first[1]["ce"]                              # B is zero: only the rows make the difference


def test_a_loss_that_is_not_finite_stops_and_says_where(tmp_path):
    done = run(*SMALL, "--max-steps", "30", "--lr", "1e30", "--save-every", "1", "--out", tmp_path / "r", ok=False)
    message = done.stderr.splitlines()[-1]
    assert "is not finite (rows" in message and "last good checkpoint: none" in message    # the first step ruined the weights
    assert not list((tmp_path / "r/checkpoint").glob("*.json"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_train(precision, tmp_path):
    run(*SMALL, "--max-steps", "12", "--precision", precision, "--lambda-start-epoch", "0", "--lr", "0.003", "--out", tmp_path / "r")
    ce = [line["ce"] for line in records(tmp_path / "r/metrics.jsonl")]
    assert sum(ce[-3:]) < sum(ce[:3])


def test_a_whole_run_then_score_and_chat(tmp_path):
    """The demo in small: what it prints and writes, running it twice, and the other commands on its result."""
    out = tmp_path / "demo"
    first = run("--max-steps", "4", "--score-limit", "6", "--max-new-tokens", "12", "--out", out)
    assert "trainable in all, fp32" in first.stdout and "mean over roles" in first.stdout and "role swap:" in first.stdout
    scores = json.loads((out / "scores.json").read_text())
    assert scores["splits"].keys() == {"general", "role_specific"} and scores["swap"].keys() == {"right", "wrong"}
    assert 0 <= scores["retrieval_top1"] <= 1 and scores["splits"]["general"]["overall"]["n"] == 6
    lines = records(out / "predictions.jsonl")
    assert len(lines) == 12 and lines[0].keys() >= {"split", "role", "question", "references", "answer"}
    assert {p.name for p in out.iterdir()} == {"config.json", "roles.json", "adapter.safetensors", "metrics.jsonl", "checkpoint",
                                               "scores.json", "predictions.jsonl", "likelihood.jsonl", "scores_backbone.json", "predictions_backbone.jsonl"}
    stamp = (out / "adapter.safetensors").stat().st_mtime_ns
    again = run("--max-steps", "1", "--score-limit", "0", "--out", out)
    assert f"this one goes to {out}-2" in again.stdout and (out / "adapter.safetensors").stat().st_mtime_ns == stamp
    scored = run("--run", out, "--limit", "4", "--split", "general", "--swap-roles", "--out", tmp_path / "s.json",
                 "--max-new-tokens", "8", script="eval")
    assert "as the wrong role" in scored.stdout and (tmp_path / "s.jsonl").is_file()
    talk = run("--run", out, "--role", "孙悟空", "--max-new-tokens", "8", script="chat",
               stdin="你是谁？\n/role Tik-Tok\nWho are you?\n/role Tik\n/roles\n/bogus\n/all Who are you?\n/all 你是谁？\n/blend Count Dracula 孙悟空 0.4\n"
               "Who?\n/blend nobody\n/blend Tik-Tok Tik-Tok 2\n" + ("long " * 120 + "\n") * 5 + "long " * 600 + "\n<|im_end|> \x1b[31m\n/quit\n")
    assert "孙悟空: " in talk.stdout and "Tik-Tok: " in talk.stdout and "did you mean Tik-Tok" in talk.stdout and "is too long: there is room for" in talk.stdout
    assert "/role NAME changes the character" in talk.stdout and "Count Dracula + 孙悟空: " in talk.stdout
    assert "(not asked: 孙悟空, 林黛玉, trained on Chinese alone)" in talk.stdout and talk.stdout.count("(not asked: ") == 2
    assert "(Count Dracula + 孙悟空 was trained on" not in talk.stdout
    assert talk.stdout.count("/blend takes two names and a weight") == 2 and "(the conversation is long: 1 old turn forgotten)" in talk.stdout
    assert all(sum(line.startswith(name) for line in talk.stdout.splitlines()) >= 1 for name in json.loads((out / "roles.json").read_text()))
    wrong = run("--run", out, "--role", "Drakula", script="chat", ok=False)
    assert "did you mean Count Dracula" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    missing = run("--run", tmp_path / "none", script="eval", ok=False)
    assert "is not a run folder" in missing.stderr


@pytest.mark.parametrize("fails, words", [("save", "full; its checkpoint is whole: go on with python train.py --resume r"),
                                          ("score", "full; the run is whole: score it with python eval.py --run r")])
def test_a_disk_that_is_full_at_the_end_loses_no_training(fails, words, monkeypatch):
    def full(*_):
        raise OSError("full")
    model = SimpleNamespace(save=full if fails == "save" else lambda run: None, eval=lambda: None)
    monkeypatch.setattr(train, "evaluate_before_after", full)
    with pytest.raises(OSError, match=f"^{words}$"):
        train.save_and_score(model, None, "r", {"A": 0}, ["a test line"], [])


def test_of_many_lines_some_are_chosen_and_profiles_may_be_left_out(tmp_path):
    write_rolebench(tmp_path, [(role, f"{role}{n}?", ["x"]) for role in "AB" for n in range(9)])
    (tmp_path / "profiles-eng").mkdir()
    (tmp_path / "profiles-eng/desc.json").write_text('{"A": "One."}')
    cfg = resolve(Config(data=str(tmp_path), model="tiny/backbone", language="en", score_limit=0, samples_per_role=4))
    samples, tests, roles, profiles = prepare.load_data(cfg)
    assert Counter(s.role for s in samples) == {"A": 4, "B": 4} and tests == [] and roles == {"A": 0, "B": 1} and profiles == {"A": "One."}
    *_, profiles = prepare.load_data(dataclasses.replace(cfg, profiles_in_prompt=False))
    assert profiles == {}
