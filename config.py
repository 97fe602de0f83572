"""The configuration: one dataclass, whose fields are the command line, the config files, and a run's config.json."""
from console import Parser, one_line

import argparse
import dataclasses
import difflib
import inspect
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import torch

from files import ROOT, FileError, lasting_name, read_json
from hycora_layer import METHODS, AdapterConfig


@dataclass(frozen=True)
class Config(AdapterConfig):
    """Every key; those of AdapterConfig are keys too. The comments are what --help prints."""
    # the experiment
    model: str = ""                     # backbone: Hugging Face folder or hub id
    data: str = ""                      # a JSONL file, or RoleBench: folder or hub id
    language: Literal["en", "zh", "all", "other"] = "en"  # other: words between blanks; only for a JSONL file
    role_subset: str = ""               # role names, comma-separated or as JSON, or a number: the first so many
    splits: tuple[str, ...] = ("general", "role_specific")
    generalization: Literal["instruction", "role"] = "instruction"  # English test: new questions, or new roles
    samples_per_role: int = 0           # training questions of a role in each split: so many by chance; 0: all
    answers: Literal["all", "first", "sampled"] = "all"  # of several to a question: all; the first; one per epoch
    out: str = "runs/demo"              # run folder

    # the prompt
    template: str = "auto"              # a prompt template of tokenizer.py; auto: by the tokenizer's chat template
    role_in_prompt: bool | None = None  # describe the role in the prompt; default: only if A and B are both shared
    profiles_in_prompt: bool = True     # if it is in the prompt: with its description, not by its name alone
    max_length: int = 1024              # tokens of a training example

    # optimization
    epochs: float = 3.0
    max_steps: int = 0                  # optimizer steps; 0: by epochs
    batch_size: int = 8                 # examples of a micro-batch: the set I of Eq. 7
    grad_accum: int = 1                 # micro-batches of a step
    balance_roles: bool = False         # P x K batches: several roles, two examples of each
    lr: float = 1e-4
    warmup_ratio: float = 0.1           # share of the steps
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    # the contrastive loss
    tau: float = 0.1                    # temperature of Eq. 7
    lambda_min: float = 0.0             # of Eq. 8
    lambda_max: float = 0.3             # of Eq. 8; 0 is "w/o HCL"
    lambda_start_epoch: float = 1.0
    lambda_schedule: Literal["linear", "cosine"] = "linear"
    contrast_anchor: Literal["role", "response"] = "role"  # response: as in the authors' code
    pool: Literal["last", "before_eos", "mean"] = "last"  # which tokens of a response represent it in Eq. 5

    # the machine
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False               # compile the transformer block
    checkpoint_activations: bool = False  # recompute each block in the backward pass: less memory, 1.4 x the FLOPs
    device: str = "auto"
    seed: int = 42

    # what is written when
    save_every: int = 500               # steps between checkpoints
    log_every: int = 10                 # steps between looks at the GPU
    test_every: int = 100               # steps between looks at held-out likelihood; 0: none (nor with compile)
    score_limit: int = 500              # test lines per split scored at the end; 0: none
    likelihood_limit: int = 0           # test lines per split whose likelihood is measured; 0: as scored, at most 50
    max_new_tokens: int = 128           # of each scored answer

    def validate(self):
        """Raises ValueError for a number that is out of its range, or a text that has to be there."""
        if not self.out:
            raise ValueError("out has to name a folder")

        # all other numbers are positive, and at most a million, more than any machine can hold
        may_be_zero = {"adapter_dropout", "num_blocks", "samples_per_role", "max_steps", "warmup_ratio", "weight_decay",
                       "lambda_min", "lambda_max", "lambda_start_epoch", "seed", "test_every", "score_limit",
                       "likelihood_limit"}
        at_most = {"adapter_dropout": 0.99, "warmup_ratio": 1.0, "seed": 2 ** 62, "num_blocks": 1000, "lr": 1e38,
                   "max_steps": 10 ** 12}
        for name in KEYS:
            value = getattr(self, name)
            if isinstance(value, (bool, str, tuple, type(None))):
                continue
            most = at_most.get(name, 10 ** 6)
            if not value <= most:
                raise ValueError(f"{name} is {value}, but it can be {most:g} at most")
            if value < 0 or value == 0 and name not in may_be_zero:
                least = "0 or more" if name in may_be_zero else "positive"
                raise ValueError(f"{name} is {value}, but it has to be {least}")


LONGER = ("epochs", "max_steps")        # what --resume may change
KEYS = {f.name: f for f in fields(Config) if f.name != "num_roles"}      # the data says how many roles there are


# ------------------------------------------------------------------------------------------------------------- reading
def convert(value, kind):
    """`value`, from JSON or the command line, as a field's type; ValueError, KeyError or TypeError if it is not."""
    text = str(value).strip()
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if kind == bool | None:
        return {"true": True, "false": False, "none": None}[text.lower()]
    if kind is int:
        if isinstance(value, bool) or not float(value).is_integer():
            raise ValueError
        return int(float(value))
    if kind == tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in parts if part.strip())
    if get_args(kind) and value not in get_args(kind):                   # a Literal
        raise ValueError(f"choose {', '.join(get_args(kind))}")
    return kind(value) if kind in (str, float) else value


def parse_values(values, origin):
    """{key: value} with each value of its key's type; ValueError names `origin`, the key and what is wrong."""
    parsed = {}
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FileError(f"{origin}: there is no key {key!r}{hint}")
        try:
            parsed[key] = convert(value, KEYS[key].type)
        except Exception as e:                           # whatever a wrong type or an unknown word comes to
            choices = f"; {e}" if str(e).startswith("choose") else ""
            raise FileError(f"{origin}: {key} cannot be {one_line(repr(value), 60)}{choices}") from None

    try:
        Config(**parsed).validate()                                      # the defaults pass, so it is one of these
    except ValueError as e:
        raise FileError(f"{origin}: {e}") from None
    return parsed


def read_config(path, before=()):
    """The keys of a JSON file. "extends" names a file beside it whose keys it changes; keys may stand in groups,
    objects whose names say where the values are from. before: the files that extend this one."""
    path = Path(path)
    values = read_json(path, "a JSON object of keys")
    inherited = {}
    if "extends" in values:
        other = values.pop("extends")
        before = (*before, path.resolve())
        if not isinstance(other, str) or (path.parent / other).resolve() in before:
            raise FileError(f"{path}: \"extends\" has to name another file")
        inherited = read_config(path.parent / other, before)

    own = {}
    for key, value in values.items():
        own |= value if isinstance(value, dict) else {key: value}
    return inherited | parse_values(own, path)


def parse_args(argv):
    """(Config, None) of a command line, or ({key: value}, run folder) for --resume, with the keys of LONGER that are
    given. The command line wins over --config, and that over the defaults."""
    parser = Parser(description="Train a Hyper Model. Without --model or --config: the demo, configs/tiny.json.")
    parser.add_argument("--config", help="a JSON file of keys")
    parser.add_argument("--resume", help="a run folder to go on with, under its own config")
    source = inspect.getsource(AdapterConfig) + inspect.getsource(Config)
    comments = dict(re.findall(r"^    (\w+): .*?# +(.+)$", source, re.M))
    for name, field in KEYS.items():
        choices = "; ".join(get_args(field.type)) if isinstance(field.default, str) else ""
        text = f"{comments.get(name, '')} {choices} (default: {field.default})".strip()
        more = {"nargs": "?", "const": "true"} if field.type in (bool, bool | None) else {}
        flags = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, metavar="VALUE",
                            help=text.replace("%", "%%"), **more)

    given = vars(parser.parse_args(argv))
    config = given.pop("config")
    resume = given.pop("resume")
    for name, value in (("--resume", resume), ("--config", config)):
        if value == "":
            raise ValueError(f"{name} is empty")
    if resume:
        if config or not given.keys() <= set(LONGER):
            raise ValueError("--resume takes everything from the run's config.json: no other key goes with it than "
                             "--epochs or --max-steps")
        return parse_values(given, "command line"), Path(resume)

    if config:
        values = read_config(config)
    elif "model" in given:
        values = {}
    else:
        values = read_config(ROOT / "configs/tiny.json")
        if "data" in given:
            del values["language"]                       # that of the demo's data
    values |= parse_values(given, "command line")
    if not values.get("model") or not values.get("data"):
        raise ValueError("both --model and --data are needed")
    return Config(**values), None


# ----------------------------------------------------------------------------------------------------------- resolving
def pick_device(name="auto"):
    """"auto" is the GPU if there is one. ValueError for a device that this machine does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()               # some devices, such as "meta", compute nothing
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as e:
        raise ValueError(f"device {name!r} cannot be used here: {one_line(e, 150)}") from None
    return name


def resolve(config):
    """`config` with every "auto" decided for this machine."""
    device = pick_device(config.device)
    precision = config.precision
    if precision == "auto":
        on_gpu = device.startswith("cuda")
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    role_in_prompt = config.role_in_prompt
    if role_in_prompt is None:
        role_in_prompt = METHODS[config.method] == ("shared", "shared")
    return dataclasses.replace(config, model=lasting_name(config.model), data=lasting_name(config.data), device=device,
                               precision=precision, role_in_prompt=role_in_prompt)
