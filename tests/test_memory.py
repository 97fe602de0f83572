"""The memory estimate, against torch's own allocator and the sizes that follow from a configuration."""
import dataclasses
import json
import sys
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

import memory
import tools.memory
import train
from batches import collate
from config import Config
from data import Example
from generate import rows_that_fit
from hycora_layer import METHODS, AdapterConfig, HyperModel
from memory import generation_memory, training_memory
from model import ModelConfig, Transformer

CONFIG = ModelConfig.from_hf(dict(model_type="qwen2", vocab_size=600, hidden_size=192, intermediate_size=512, num_hidden_layers=3,
                                  num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=256))
ADAPTER = AdapterConfig(num_roles=4, rank=4, alpha=8, role_dim=16, layer_dim=16, hidden_dim=32, head_rank=4)


def a_step(method="hycora", rows=6, length=64):
    batch = collate([Example([1] * length, length // 2, b % 4) for b in range(rows)], 0)
    lam = 0.3 if "hyper" in METHODS[method] else 0.0
    return lambda model: train.backward(model, [batch], Config(), lam, torch.amp.GradScaler("cpu", enabled=False))


def allocated(run):
    """The peak of the bytes that torch's CPU allocator hands out while `run` runs, above what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def test_what_only_a_cpu_does_is_not_counted():
    """In bf16 activations take half of what they take in fp32, attention's too; a mask of dropout takes one byte, not two."""
    plain = dataclasses.replace(ADAPTER, adapter_dropout=0.0)
    counted = {dtype: training_memory(CONFIG, plain, dtype, a_step(length=128))["activations and gradients"] for dtype in (torch.float32, torch.bfloat16)}
    assert counted[torch.bfloat16] == pytest.approx(counted[torch.float32] / 2, rel=0.1)

    with_dropout = training_memory(CONFIG, dataclasses.replace(ADAPTER, adapter_dropout=0.1), torch.bfloat16, a_step(length=128))
    widths = CONFIG.num_hidden_layers * (6 * CONFIG.hidden_size + CONFIG.intermediate_size)       # of the inputs of a block's linears
    more = with_dropout["activations and gradients"] - counted[torch.bfloat16]
    assert 1 < more / (6 * 128 * widths) < 2.5             # the mask, and what came through in place of inputs kept once for several


@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("method", ["hycora", "lora", "neeko"])
def test_the_peak_of_a_step_is_what_the_allocator_hands_out(method, checkpoint):
    """The same operations on real tensors; those that keep less on a GPU than on a CPU are the estimate's own in both."""
    config = dataclasses.replace(ADAPTER, method=method, adapter_dropout=0.0)      # whose CPU kernel has a copy of its own
    expected = training_memory(CONFIG, config, torch.float32, a_step(method), checkpoint)

    model = HyperModel(Transformer(CONFIG), config).train()
    model.backbone.checkpoint_activations = checkpoint
    with patch.object(F, "rms_norm", memory.rms_norm), patch.object(F, "scaled_dot_product_attention", memory.attention):
        peak = allocated(lambda: a_step(method)(model))
    assert expected["logits"] + expected["activations and gradients"] == pytest.approx(peak, rel=0.03)

    # what follows from the configuration
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    trainable = sum(p.nbytes for p in model.trainable().values())
    assert expected["weights"] == pytest.approx(frozen, rel=0.01)
    assert expected["trainable, AdamW"] == pytest.approx(3 * trainable, rel=0.05)


def test_recomputing_activations_takes_less_and_more_rows_take_more():
    peak = {}
    for rows in (3, 6):
        for checkpoint in (False, True):
            peak[rows, checkpoint] = training_memory(CONFIG, ADAPTER, torch.bfloat16, a_step(rows=rows), checkpoint).total()
    assert peak[3, True] < peak[3, False] < peak[6, False] and peak[6, True] < peak[6, False]


@pytest.mark.parametrize("shape", ["many key heads", "few key heads"])
def test_as_many_rows_are_answered_at_once_as_memory_has_room_for(shape, monkeypatch):
    """A fifth is kept free; what remains is used, and the estimate of the whole says that it fits."""
    heads = 6 if shape == "many key heads" else 1
    config = dataclasses.replace(CONFIG, num_key_value_heads=heads)
    backbone = Transformer(config).bfloat16()
    prompt, new = 60, 64

    def free(rows):
        return generation_memory(config, ADAPTER, torch.bfloat16, rows, prompt, new).total() - \
            generation_memory(config, ADAPTER, torch.bfloat16, 4, prompt, new).total()
    room = free(36)                                      # of 32 rows beside the weights and what 4 rows share
    monkeypatch.setattr(type(backbone), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, 2 * room))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    rows = rows_that_fit(backbone, prompt, prompt + new, most=64)
    assert 16 <= rows <= 32, rows
    assert rows_that_fit(backbone, prompt, prompt + new, most=8) == 8
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2 * room))
    assert rows_that_fit(backbone, prompt, prompt + new, most=64) == 1


def test_the_command(tmp_path, monkeypatch, capsys):
    config = dict(model_type="llama", vocab_size=600, hidden_size=192, intermediate_size=512, num_hidden_layers=2,
                  num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=256)
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = ["tools.memory", "--model", str(tmp_path), "--roles", "4", "--length", "64", "--batch-size", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--have", "1.01"])
    tools.memory.main()
    printed = capsys.readouterr().out
    assert printed.count("peak") == 2 and "training with up to" in printed

    monkeypatch.setattr(sys, "argv", [*command, "--rank", "0"])
    with pytest.raises(SystemExit, match="tools.memory: --rank is 0, but it has to be positive"):
        tools.memory.main()
