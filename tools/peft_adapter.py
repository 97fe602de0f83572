"""A role's LoRA weights as a peft adapter: what tools.export writes, and how it is checked.

An adapter holds the role's A and B of every adapted linear under peft's names; alpha / r stays outside, in its config.
What was written is read again and must give the run's own logits: a loader that finds nothing under the names it
expects (or no lora_alpha) does not complain, but answers as the untouched backbone.
"""
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

from files import read_json, write_json, write_tensors
from model import CHATGLM_NAMES


def official_name(name, config):
    """A parameter's name in the backbone's own checkpoint."""
    for theirs, ours in CHATGLM_NAMES.items() if config.chatglm else ():
        name = name.replace(ours, theirs)
    return name.replace(".base.", ".").removesuffix(".base")


def adapted(model):
    """{the linear's name in the backbone's checkpoint: AdaptedLinear}."""
    return {official_name(name, model.backbone.config): module
            for name, module in model.backbone.named_modules() if hasattr(module, "lora_weights")}


@torch.inference_mode()
def role_lora_weights(model, role):
    """{linear: (A (r, d_in), B (d_out, r))} of one role, by any method, as the linears use them."""
    with model.active_roles(torch.tensor([role])):
        return {name: tuple(m.clone() for m in linear.lora_weights) for name, linear in adapted(model).items()}


@contextmanager
def lora_weights(model, weights):
    """Within it the linears of the backbone have these {linear: (A, B)}, as `role_lora_weights` gives them."""
    linears = adapted(model)
    try:
        for name, linear in linears.items():
            linear.lora_weights = weights[name]
        yield
    finally:
        for linear in linears.values():
            linear.lora_weights = None


@torch.inference_mode()
def probe(model, role=None):
    """Logits of some ids, as a role, or (None) with the linears' LoRA weights of the moment."""
    ids = torch.arange(1, 65, device=model.backbone.device)[None] * 37 % model.backbone.config.vocab_size
    return model.backbone(ids) if role is None else model(ids, torch.tensor([role]))


def check_logits(folder, logits, expected, share):
    """The largest difference of logits; ValueError if it is more than this share of the largest logit."""
    difference = (logits - expected).abs().max().item()
    if not difference <= share * max(1.0, expected.abs().max().item()):
        raise ValueError(f"{folder} does not reproduce the run: logits differ by {difference:.2g}")
    return difference


def write_adapter(model, role, base, folder):
    """Writes a peft adapter of one role, reads it again, and returns the largest difference of its logits to the run's
    own. ValueError if there is any that matters."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = role_lora_weights(model, role)
    rank = next(iter(weights.values()))[0].size(0)       # not the run's, where a method puts several side by side
    scale = next(iter(adapted(model).values())).scale
    write_json(folder / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank,
        "lora_alpha": scale * rank, "lora_dropout": 0.0, "bias": "none", "inference_mode": True,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in weights})})

    tensors = {}
    for name, (A, B) in weights.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = A
        tensors[f"base_model.model.{name}.lora_B.weight"] = B
    write_tensors(folder / "adapter_model.safetensors", tensors)
    return verify(model, role, folder)


@torch.inference_mode()
def verify(model, role, folder):
    """Largest difference between the run's logits and those of the adapter in `folder`, read as peft reads it."""
    config = read_json(folder / "adapter_config.json")
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    expected = probe(model, role)

    weights = {}
    for name, linear in adapted(model).items():
        A, B = (tensors.pop(f"base_model.model.{name}.lora_{factor}.weight") for factor in "AB")
        weights[name] = A.to(expected.device), B.to(expected.device) * (scale / linear.scale)
    with lora_weights(model, weights):
        logits = probe(model)
    if tensors:
        raise ValueError(f"{folder} has weights of other linears: {', '.join(list(tensors)[:3])}")
    return check_logits(folder, logits, expected, share=1e-6)
