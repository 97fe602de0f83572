"""A role's adapter for other engines: as a standard peft LoRA adapter, or merged into a full Hugging Face model.

    python -m tools.export --run runs/demo --role "Count Dracula" --out DIR [--merge]
    python -m tools.export --run runs/demo --all --out DIR               # a folder for each role

The files for serving are written beside the weights: see tools/serving_files.py. What was written is read again, and
must give the run's own logits, before the tool reports success.
"""
from console import Parser, one_line_errors

import re
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict

from checkpoint import load_run
from files import check_finite, fetch_model, new_folder_at, read_json, write_json, writing
from model import Transformer
from selection import role_name
from tools.peft_adapter import (
    adapted,
    check_logits,
    official_name,
    probe,
    role_lora_weights,
    write_adapter,
)
from tools.serving_files import folder_names, write_serving_files

COPIED = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "added_tokens.json", "*.jinja",
          "generation_config.json", "*.py")


@torch.inference_mode()
def merge(model, role):
    """W_0 + alpha / r B A for one role, in place, in fp32 before it is rounded back: it then costs what W_0 did."""
    for linear, (A, B) in zip(adapted(model).values(), role_lora_weights(model, role).values()):
        W = linear.base.weight
        W.copy_(W.float() + linear.scale * B.float() @ A.float())


@torch.inference_mode()
def write_model(model, role, base, folder):
    """Merges a role and writes a full Hugging Face model; returns the largest difference of its logits, read again."""
    folder = Path(folder)
    base = fetch_model(base)
    config = model.backbone.config
    expected = probe(model, role)

    # the backbone's weights under their own names
    merge(model, role)
    state = {official_name(name, config): p.contiguous() for name, p in model.backbone.state_dict().items()
             if not re.search(r"\.(A|B|gate)$", name)}
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    check_finite(state)

    # the files; config.json names the dtype of the weights, whatever the base says
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(state, folder)
        for pattern in COPIED:
            for file in base.glob(pattern):
                shutil.copy(file, folder)
    settings = read_json(base / "config.json")
    dtype = str(model.backbone.dtype).removeprefix("torch.")
    write_json(folder / "config.json", settings | {"torch_dtype": dtype, "dtype": dtype})

    # read again; merged weights are rounded to the dtype
    model.backbone = Transformer.from_pretrained(folder, model.backbone.dtype, model.backbone.device)
    share = 1e-3 if model.backbone.dtype == torch.float32 else 0.1
    return check_logits(folder, probe(model), expected, share)


def export_role(model, tokenizer, config, role, folder, merged):
    """Writes a role's weights and what serving needs; returns the largest difference of its logits to the run's.

    merged: into the backbone, which has that role's weights from then on.
    """
    number = config["roles"][role]
    write = write_model if merged else write_adapter
    difference = write(model, number, config["model"], folder)
    rank = None if merged else read_json(folder / "adapter_config.json")["r"]
    write_serving_files(folder, role, tokenizer, config, rank)
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
        names = folder_names(config["roles"])
        if args.role:
            names = {role_name(args.role, config["roles"]): ""}
        differences = {}
        for role, name in names.items():
            differences[role] = export_role(model, tokenizer, config, role, folder / name, args.merge)

    for role, difference in differences.items():
        print(f"{role}: {Path(args.out) / names[role]}, read again: logits differ from the run's by at most "
              f"{difference:.2g}")
    if config["method"] == "lora" and config["role_in_prompt"]:
        print("all roles of this run have the same weights: the persona in its chat_template.jinja makes the role")


if __name__ == "__main__":
    main()
