"""Trainable parameters of every method for a backbone: the paper's Figure 3, from a config.json alone.

    python -m tools.params --model meta-llama/Llama-2-7b-hf --roles 95 [--head-rank 32 --hidden-dim 256 ...]

r rank, R roles, L adapted linears, n_t of kind t and d_in x d_out each, k head rank, d_c, d_l, d_h, N as in hyper.py:
    lora          sum_t n_t r (d_in + d_out)
    ind-lora      R times that
    neeko         R times that, and L gates of R x 1024
    hycora        E + sum_t [k (d_h + 1) + (k + 1) r d_in]  + sum_t n_t r d_out + P
    rsp-a-rsp-b   E + sum_t of both heads, for r d_in and for d_out r           + P
    mrs-a-rsp-b   E + sum_t [k (d_h + 1) + (k + 1) d_out r] + sum_t n_t r d_in  + P
    ind-a-mrs-b   sum_t n_t r (R d_in + d_out), a control that is not in the paper
where the encoder is E = R d_c + L d_l + 2 (d_c + d_l) + (d_c + d_l + 1) d_h + N [2 (d_h + 1) d_h + 2 d_h] + 2 d_h, and
the contrastive projections, used in training alone, P = (d_c + 1) d_c + (C + 1) d_c for a model of width C.
The numbers printed are counted on the model itself, built without memory; a test compares them with these formulas.
"""
from console import Parser, one_line_errors

import dataclasses
import functools
from pathlib import Path

import torch

from arguments import read_config
from config import KEYS
from files import ROOT, fetch, read_json, reading
from hycora_layer import METHODS, AdapterConfig, HyperModel
from model import Transformer
from model_config import MODEL_NUMBERS, ModelConfig

AUTHORS = ROOT / "configs/llama2-7b-en.json"          # the authors' sizes for LLaMA-2-7B
SIZES = {f.name: f.default for f in dataclasses.fields(AdapterConfig) if KEYS.get(f.name) is int}
LLAMA2_7B = dict(model_type="llama", vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                 num_attention_heads=32)


def count(model_config, adapter_config):
    """(trainable parameters, adapted linears) of a Hyper Model."""
    with torch.device("meta"):
        model = HyperModel(Transformer(model_config), adapter_config)
    return sum(p.numel() for p in model.trainable().values()), sum(map(len, model.adapted.values()))


@functools.cache
def trainable(method, roles):
    """Trainable parameters of a method on LLaMA-2-7B, with the authors' sizes."""
    sizes = {name: read_config(AUTHORS)[name] for name in SIZES}
    return count(ModelConfig.from_hf(LLAMA2_7B), AdapterConfig(method=method, num_roles=roles, **sizes))[0]


def add_model(parser):
    """Adds --model, --roles and a flag for each size of AdapterConfig to an ArgumentParser."""
    parser.add_argument("--model", required=True, help="a config.json, its folder, or a hub id")
    parser.add_argument("--roles", type=int, required=True)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)


def read_model(args, method="hycora"):
    """(ModelConfig, AdapterConfig) of the arguments of `add_model`. ValueError for a whole number among all arguments
    that is not positive, or too large."""
    for name, value in vars(args).items():
        least = 0 if name == "num_blocks" else 1
        if type(value) is int and not least <= value <= 10 ** 6:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, but it has to be positive, and a million at most")
    path = Path(args.model) if args.model.endswith(".json") else fetch(args.model, ["config.json"]) / "config.json"
    with reading(path, "the config.json of a backbone that is implemented"):
        model_config = ModelConfig.from_hf(read_json(path, numbers=MODEL_NUMBERS))
    sizes = {name: getattr(args, name) for name in SIZES}
    return model_config, AdapterConfig(method=method, num_roles=args.roles, **sizes)


@one_line_errors("tools.params")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    add_model(parser)
    args = parser.parse_args()
    model_config, config = read_model(args)
    counts = {method: count(model_config, dataclasses.replace(config, method=method)) for method in METHODS}
    print(f"{args.model}, {args.roles} roles, {counts['lora'][1]} adapted linears, rank {config.rank}")
    for method, (n, _) in counts.items():
        print(f"{method:<14}{n:>16,}{n / 1e6:>12.2f} M{n / counts['lora'][0]:>9.2f} x lora")


if __name__ == "__main__":
    main()
