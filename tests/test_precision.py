"""Steps that are not finite, and what has to be computed in fp32: the loop itself, in this process."""
import itertools
import json
import math
import time
from unittest.mock import patch

import pytest
import torch
import torch.nn as nn
from conftest import randomise, records, small_backbone
from safetensors.torch import load_file
from test_layer import hyper_model

import checkpoint
import config
import prepare
import processes
import train
from batches import Steps, collate
from benchmarks.peers import OfficialLinear
from checkpoint import DTYPES
from config import Config
from data import Example
from hyper import HyperNetwork
from losses import hyper_contrastive_loss, response_cross_entropy


def fit(run, precision="fp32", bad=(), max_steps=6, resume=False, **options):
    """Trains a small model in `run`; the gradients of the steps in `bad` have one element that is infinite."""
    backbone = small_backbone().to(DTYPES[precision])
    model = randomise(hyper_model("hycora", backbone), 0.05)
    examples = [Example(torch.randint(97, (8 + i,)).tolist(), 4, i % 4) for i in range(8)]
    cfg = Config(batch_size=4, max_steps=max_steps, lr=0.01, precision=precision, log_every=1, save_every=1, lambda_start_epoch=0.0,
                 lambda_min=0.1)
    backward, step = train.backward, iter(range(max_steps))

    def spoilt(model, *args):
        stats = backward(model, *args)
        if next(step) in bad:
            next(iter(model.trainable().values())).grad.view(-1)[0] = math.inf
        return stats
    with patch.object(train, "backward", spoilt), patch.object(checkpoint, "CHECKPOINTS_KEPT", max_steps):
        train.fit(model, Steps(examples, cfg, 0, **options), cfg, run, resume)
    return model


def checkpoints(run):
    return [load_file(path) for path in sorted((run / "checkpoint").glob("*.safetensors"))]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_said(precision, tmp_path, capsys):
    """It once wrote NaN into every weight, and the checkpoint with them was sealed and named the last good one."""
    fit(tmp_path, precision, bad={2, 4})
    lines = records(tmp_path / "metrics.jsonl")
    assert lines[2]["skipped"] and lines[4]["skipped"]
    if precision != "fp16":                              # whose first steps are skipped while the scale is found
        assert [line["skipped"] for line in lines] == [False, False, True, False, True, False]
    assert lines[2]["grad_norm"] is None and lines[2]["loss"] is not None
    assert "the gradient of step 2 is not finite (rows [[" in capsys.readouterr().out

    saved = checkpoints(tmp_path)
    assert len(saved) == 6 and all(tensor.isfinite().all() for tensors in saved for tensor in tensors.values())
    weights = [{name: t for name, t in tensors.items() if not name.startswith("rng")} for tensors in saved]
    for before, after in ((1, 2), (3, 4)):
        assert all(torch.equal(weights[before][name], weights[after][name]) for name in weights[before])
    assert any(not torch.equal(weights[0][name], weights[5][name]) for name in weights[2])


def test_a_resumed_fp16_run_goes_on_with_its_loss_scale(tmp_path):
    def last_seal():
        return json.loads((tmp_path / "checkpoint/00000006.json").read_text())["scaler"]
    weights = []
    scalers = []
    for resume in (False, True):
        torch.manual_seed(7)
        model = fit(tmp_path, "fp16", bad={0, 1} if not resume else (), resume=resume)
        weights.append({name: p.detach().clone() for name, p in model.trainable().items()})
        scalers.append(last_seal())
        for path in (tmp_path / "checkpoint").iterdir():                 # the second time from step 3
            if int(path.stem) > 3:
                path.unlink()
    assert scalers[0] == scalers[1] and scalers[0]["scale"] <= 65536 / 4
    assert all(torch.equal(p, weights[1][name]) for name, p in weights[0].items())


def test_three_in_a_row_end_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match=r"gradient of step 3 is not finite \(rows .*nor were the 2 before it; last good checkpoint: 00000003"):
        fit(tmp_path, bad={1, 2, 3})
    assert all(tensor.isfinite().all() for tensors in checkpoints(tmp_path) for tensor in tensors.values())


def test_fp16_may_skip_more_while_it_looks_for_its_scale(tmp_path):
    fit(tmp_path, "fp16", bad={0, 1, 2, 3})
    assert len(checkpoints(tmp_path)) == 6


def test_a_process_without_a_micro_batch_takes_part_in_an_fp16_step(tmp_path):
    """The only batch is the other process's; from it come gradients, of ones here. The scaler once had no scale yet."""
    def from_the_other(params, stats):
        for p in params:
            p.grad = torch.ones_like(p)
        return stats + 1
    with patch.object(train, "sum_over_processes", from_the_other):
        model = fit(tmp_path, "fp16", max_steps=1, rank=2, processes=3)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["skipped"] is False
    assert all(p.isfinite().all() for p in model.trainable().values())


def test_a_clock_that_is_set_back_makes_no_speed(tmp_path, monkeypatch):
    """It made 1.5e11 tokens a second."""
    hours = itertools.count(10 ** 9, -3600)
    monkeypatch.setattr(time, "time", lambda: next(hours))
    fit(tmp_path)
    assert all(0 < line["tokens_per_s"] < 1e7 for line in records(tmp_path / "metrics.jsonl"))


# ------------------------------------------------------------------------------------------------ what is computed in fp32
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_contrastive_loss_of_a_half_precision_model_is_in_fp32(precision):
    """Under autocast its similarities would be products in half precision, 0.03 nats off."""
    model = randomise(hyper_model("hycora", small_backbone().to(DTYPES[precision])), 0.05)
    examples = [Example(torch.randint(97, (12,)).tolist(), 4, i % 4) for i in range(8)]
    seen = []

    def spy(z_r, z_t, roles, *args):
        loss = hyper_contrastive_loss(z_r, z_t, roles, *args)
        seen.append((loss.item(), hyper_contrastive_loss(z_r.double(), z_t.double(), roles, *args).item()))
        return loss
    with patch.object(train, "hyper_contrastive_loss", spy):
        batch = collate(examples, 0)
        train.backward(model, [batch], Config(precision=precision), 0.3, torch.amp.GradScaler("cpu", enabled=False))
    (loss, exact), = seen
    assert loss == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("dtype, upstream", [(torch.bfloat16, 1 / 300), (torch.float16, 65536.0)])
def test_the_factor_of_the_loss_is_not_rounded(dtype, upstream):
    """1 / tokens in bf16 is up to 0.39 % off, and a loss scale of 65536 is infinite in fp16."""
    head, targets = torch.randn(50, 6).to(dtype) / 64, torch.randint(50, (1,))
    hidden = torch.randn(1, 6).to(dtype).requires_grad_()
    grad, = torch.autograd.grad(response_cross_entropy(hidden, head, targets), hidden)
    scaled, = torch.autograd.grad(response_cross_entropy(hidden, head, targets) * upstream, hidden)
    assert torch.equal(scaled, (grad.double() * torch.tensor(upstream).double()).to(dtype)) and scaled.isfinite().all()


# ---------------------------------------------------------------------------------------- what depends on the machine alone
def test_the_random_state_is_that_of_the_models_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(str(device)) or torch.zeros(16))
    assert checkpoint.rng_state(torch.device("cuda:1")).keys() == {"cpu", "cuda"} and asked == ["cuda:1"]
    assert checkpoint.rng_state(torch.device("cpu")).keys() == {"cpu"} and asked == ["cuda:1"]


def test_bf16_that_is_only_emulated_is_not_chosen(monkeypatch):
    monkeypatch.setattr(config, "pick_device", lambda name: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert config.resolve(Config()).precision == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert config.resolve(Config()).precision == "bf16"


def test_processes_on_the_cpu_of_a_machine_with_gpus_use_gloo(monkeypatch):
    """The device of a message decides how it travels: nccl cannot carry a tensor of the CPU."""
    backends = []
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("the device is not known yet"))
    monkeypatch.setattr(torch.distributed, "init_process_group", backends.append)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    processes.join()
    assert backends == ["cpu:gloo,cuda:nccl"]


def test_more_processes_than_gpus_are_an_error_of_every_process(monkeypatch):
    monkeypatch.setattr(prepare, "world", lambda: (1, 2))
    monkeypatch.setattr(config, "pick_device", lambda name: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes here, for 1 GPU: lower --nproc_per_node"):
        prepare.read_arguments(["--device", "cuda"])


@pytest.mark.parametrize("rank, error, shown", [("0", ValueError("no"), "train.py: no"), ("1", ValueError("no"), 1), ("1", torch.OutOfMemoryError("CUDA out of memory"), "out of memory")])
def test_the_first_process_of_a_machine_says_what_is_wrong_and_any_that_memory_is_full(monkeypatch, rank, error, shown):
    def fail(argv):
        raise error
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(train, "run_training", fail)
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == shown or shown in str(stop.value.code) != "1"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_authors_layer_answers_in_the_dtype_of_its_base(autocast, dtype):
    """As the peer of benchmarks.decode, which has no autocast; on a GPU its backbone is bf16."""
    layer = OfficialLinear(nn.Linear(12, 6).to(dtype), HyperNetwork(5, {"q_proj": (1, {"A": (8, 12)})}), "q_proj", 0, [torch.tensor([0, 1])])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        x = torch.randn(2, 3, 12, dtype=dtype)
        assert layer(x).dtype == layer.base(x).dtype


def test_attention_makes_no_plans():
    """cuDNN's would, for every new shape of a batch; importing the model turns it off."""
    assert not torch.backends.cuda.cudnn_sdp_enabled()
