"""The configuration: one dataclass, whose fields are the command line, the config files, and a run's config.json."""
from console import one_line

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints

import torch

from files import check_numbers, lasting_name
from hycora_layer import METHODS, AdapterConfig, Size

# numbers: their type, the least and the most that they may be
Count = Annotated[int, 0, 10 ** 6]
Positive = Annotated[float, 1e-12, 1e38]
NotNegative = Annotated[float, 0, 10 ** 6]
Share = Annotated[float, 0, 1]


@dataclass(frozen=True)
class Config(AdapterConfig):
    """Every key; those of AdapterConfig are keys too. The comments are what --help prints."""
    # the experiment
    model: str = ""                     # backbone: Hugging Face folder or hub id
    data: str = ""                      # a JSONL file, or RoleBench: folder or hub id
    language: Literal["en", "zh", "all", "other"] = "en"  # other: words between spaces; only for a JSONL file
    role_subset: str = ""               # role names, comma-separated or as JSON, or a number n: the first n
    splits: tuple[str, ...] = ("general", "role_specific")
    generalization: Literal["instruction", "role"] = "instruction"  # English test: new questions, or new roles
    samples_per_role: Count = 0         # training questions of a role in each split, at random; 0: all
    answers: Literal["all", "first", "sampled"] = "all"  # of several to a question: all; the first; one per epoch
    out: str = "runs/demo"              # run folder

    # the prompt
    template: str = "auto"              # a prompt template of tokenizer.py; auto: by the tokenizer's chat template
    role_in_prompt: bool | None = None  # describe the role in the prompt; default: only if A and B are both shared
    profiles_in_prompt: bool = True     # if it is in the prompt: with its description, not by its name alone
    max_length: Size = 1024             # tokens of a training example

    # optimization
    epochs: Annotated[float, 1e-6, 10 ** 6] = 3.0
    max_steps: Annotated[int, 0, 10 ** 12] = 0  # optimizer steps; 0: by epochs
    batch_size: Size = 8                # examples of a micro-batch: the set I of Eq. 7
    grad_accum: Size = 1                # micro-batches of a step
    balance_roles: bool = False         # P x K batches: several roles, two examples of each
    lr: Positive = 1e-4
    warmup_ratio: Share = 0.1           # share of the steps
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0

    # the contrastive loss
    tau: Positive = 0.1                 # temperature of Eq. 7
    lambda_min: NotNegative = 0.0       # of Eq. 8
    lambda_max: NotNegative = 0.3       # of Eq. 8; 0 is "w/o HCL"
    lambda_start_epoch: NotNegative = 1.0
    lambda_schedule: Literal["linear", "cosine"] = "linear"
    contrast_anchor: Literal["role", "response"] = "role"  # response: as in the authors' code
    pool: Literal["last", "before_eos", "mean"] = "last"  # which tokens of a response represent it in Eq. 5
    contrast_reader: Literal["role", "other", "backbone"] = "role"  # whose hidden states they are: see read_by

    # the machine
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False               # compile the transformer block
    checkpoint_activations: bool = False  # recompute each block in the backward pass: less memory, 1.4 x the FLOPs
    device: str = "auto"
    seed: Annotated[int, 0, 2 ** 62] = 42

    # what is written when
    save_every: Size = 500              # steps between checkpoints
    log_every: Size = 10                # steps between looks at the GPU
    test_every: Count = 100             # steps between looks at held-out likelihood; 0: none (nor with compile)
    score_limit: Count = 500            # test lines per split scored at the end; 0: none
    likelihood_limit: Count = 0         # test lines per split whose likelihood is measured; 0: as scored, at most 50
    max_new_tokens: Size = 128          # of each scored answer

    def validate(self):
        """Raises ValueError for a number out of its range, or if `out` names no folder."""
        check_numbers(vars(self), RANGES)
        if not self.out:
            raise ValueError("out has to name a folder")


# {key: type}; the data say how many roles there are
KEYS = {key: kind for key, kind in get_type_hints(Config).items() if key != "num_roles"}

# {key: (type, least, most)}
RANGES = {f.name: (KEYS[f.name], *f.type.__metadata__) for f in dataclasses.fields(Config)
          if f.name in KEYS and hasattr(f.type, "__metadata__")}


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
