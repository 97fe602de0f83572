"""A role's adapter for other engines: as a standard peft LoRA adapter, or merged into a full Hugging Face model.

    python -m tools.export --run runs/demo --role "Count Dracula" --out DIR [--merge]
    python -m tools.export --run runs/demo --all --out DIR               # a folder for each role

An adapter holds the role's A and B of every adapted linear under peft's names; alpha / r stays outside, in its config.
Beside it stands what serving needs: see tools/serving_files.py.
What was written is read again and has to give the run's own logits before the tool says done: a loader that finds
nothing under the names it expects (or no lora_alpha) does not complain, it answers as the untouched backbone.
"""
from console import Parser, one_line_errors

import json
import re
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file

from checkpoint import load_run
from data import role_id
from files import check_finite, fetch_model, new_folder_at, write_json, write_tensors, writing
from model import CHATGLM_NAMES, Transformer
from tools.serving_files import folder_names, write_serving_files

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "added_tokens.json", "*.jinja",
                   "generation_config.json", "*.py")


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


def adapter_rank(model, role):
    """The rank of a role's LoRA weights, which is not the run's `rank` where a method puts several side by side."""
    A, _ = next(iter(role_lora_weights(model, role).values()))
    return A.size(0)


@torch.inference_mode()
def probe(model, role=None):
    """Logits of some ids, as a role, or (None) with the linears' LoRA weights of the moment."""
    ids = torch.arange(1, 65, device=model.backbone.device)[None] * 37 % model.backbone.config.vocab_size
    return model.backbone(ids) if role is None else model(ids, torch.tensor([role]))


def write_adapter(model, role, base, folder):
    """Writes a peft adapter of one role, reads it again, and returns the largest difference of its logits to the run's
    own. ValueError if there is any that matters."""
    made, folder = role_lora_weights(model, role), Path(folder)
    rank, scale = adapter_rank(model, role), next(iter(adapted(model).values())).scale
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank,
              "lora_alpha": scale * rank, "lora_dropout": 0.0, "bias": "none", "inference_mode": True,
              "target_modules": sorted({name.rsplit(".", 1)[-1] for name in made})}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", config)
    tensors = {f"base_model.model.{name}.lora_{factor}.weight": m.contiguous().cpu()
               for name, weights in made.items() for factor, m in zip("AB", weights)}
    write_tensors(folder / "adapter_model.safetensors", tensors)
    return verify(model, role, folder)


@torch.inference_mode()
def verify(model, role, folder):
    """Largest difference between the run's logits and those of the adapter in `folder`, read as peft reads it."""
    config = json.loads((folder / "adapter_config.json").read_text("utf8"))
    tensors, expected = load_file(folder / "adapter_model.safetensors"), probe(model, role)
    scale = config["lora_alpha"] / config["r"]
    try:
        for name, linear in adapted(model).items():
            A, B = (tensors.pop(f"base_model.model.{name}.lora_{factor}.weight") for factor in "AB")
            linear.lora_weights = [A.to(expected.device), B.to(expected.device) * (scale / linear.scale)]
        difference = (probe(model) - expected).abs().max().item()
    finally:
        for linear in adapted(model).values():
            linear.lora_weights = None
    if tensors or not difference <= 1e-3 * max(1.0, expected.abs().max().item()):
        raise ValueError(f"{folder} does not reproduce the run: logits differ by {difference:.2g}")
    return difference


@torch.inference_mode()
def merge(model, role):
    """W_0 + alpha / r B A for one role, in place, in fp32 before it is rounded back: it then costs what W_0 did."""
    for linear, (A, B) in zip(adapted(model).values(), role_lora_weights(model, role).values()):
        W = linear.base.weight
        W.copy_(W.float() + linear.scale * B.float() @ A.float())


@torch.inference_mode()
def write_model(model, role, base, folder):
    """Merges a role and writes a full Hugging Face model; returns the largest difference of its logits, read again."""
    folder, base, config = Path(folder), fetch_model(base), model.backbone.config
    expected = probe(model, role)
    merge(model, role)
    state = {official_name(name, config): p for name, p in model.backbone.state_dict().items()
             if not re.search(r"\.(A|B|gate)$", name)}
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    check_finite(state)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict({name: p.contiguous() for name, p in state.items()}, folder)
        for pattern in TOKENIZER_FILES:
            for file in base.glob(pattern):
                shutil.copy(file, folder)
    settings = json.loads((base / "config.json").read_text("utf8"))
    dtype = str(model.backbone.dtype).removeprefix("torch.")              # that of the weights, whatever the base says
    write_json(folder / "config.json", settings | {"torch_dtype": dtype, "dtype": dtype})
    model.backbone = Transformer.from_pretrained(folder, model.backbone.dtype, model.backbone.device)
    difference = (probe(model) - expected).abs().max().item()
    share = 1e-3 if model.backbone.dtype == torch.float32 else 0.1       # merged weights are rounded to the dtype
    if not difference <= share * max(1.0, expected.abs().max().item()):
        raise ValueError(f"{folder} does not reproduce the run: logits differ by {difference:.2g}")
    return difference


@one_line_errors("tools.export")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--role", help="whose adapter")
    parser.add_argument("--all", action="store_true", help="every role's, each in a folder of its name")
    parser.add_argument("--out", required=True, help="a new folder")
    parser.add_argument("--merge", action="store_true", help="a full model instead of an adapter")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if bool(args.role) == args.all or args.all and args.merge:
        raise ValueError("name one --role (with --merge if you like), or --all")
    with new_folder_at(args.out) as folder:
        model, tokenizer, config = load_run(args.run, args.device)
        if args.all:
            names = folder_names(config["roles"])
        else:
            number = role_id(args.role, config["roles"])
            names = {role: "" for role, other in config["roles"].items() if other == number}
        differences = {}
        for role, name in names.items():
            number = config["roles"][role]
            rank = None if args.merge else adapter_rank(model, number)
            write = write_model if args.merge else write_adapter
            differences[role] = write(model, number, config["model"], folder / name)
            write_serving_files(folder / name, role, tokenizer, config, rank)
    for role, difference in differences.items():
        print(f"{role}: {Path(args.out) / names[role]}, read again: logits differ from the run's by at most "
              f"{difference:.2g}")
    if config["method"] == "lora":
        print("all roles of this run have the same weights: the persona in its chat_template.jinja makes the role")


if __name__ == "__main__":
    main()
