"""Training: a hand-written loop, from the command line to the scored run.

    python train.py                                              the demo: tiny backbone, tiny data, minutes on a CPU
    python train.py --config configs/tiny.json [--any-key value]
    python train.py --model FOLDER_OR_ID --data FOLDER_OR_ID --language en --out runs/mine
    python train.py --resume runs/mine
    torchrun --nproc_per_node 8 train.py --config ...            many GPUs; only the trainable gradients travel

What has which precision, and where it is decided:
    backbone: weights, activations              bf16 where the GPU has it, else fp32 (--precision); frozen   eval.build
    forward pass                                autocast to the backbone's precision       HyperModel.speaking_as
    all that trains, AdamW, softmax, losses     fp32                                       here and losses.py
With fp16 the loss is scaled (GradScaler), and a step whose gradients overflow is skipped and logged as such.

Eq. 7's set I is a micro-batch: `batch_size` samples of one process, however many of them `grad_accum` and processes
add up. The cross-entropy is divided by the supervised tokens of the whole step, so that 1 x 4 accumulated equals 4 x 1,
and N processes do what one does with N times the `grad_accum`.
"""
import argparse
import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

import eval as evaluation
from data import (
    SPLITS,
    batch_order,
    choose_roles,
    collate,
    encode_rows,
    fetch,
    first_of_each,
    load_profiles,
    load_rolebench,
    padding_share,
)
from hycora_layer import METHODS, AdapterConfig
from losses import hyper_contrastive_loss, lambda_at, pool_response, response_cross_entropy, total_loss

CHECKPOINTS_KEPT = 2


# ---------------------------------------------------------------------------------------------------- configuration
@dataclass(frozen=True)
class Config(AdapterConfig):
    """Every key of the command line, of config files and of a run's config.json; AdapterConfig's are keys too."""
    model: str = ""                     # backbone: Hugging Face folder or hub id
    data: str = ""                      # RoleBench: folder or hub id
    language: str = "en"                # en, zh or all
    role_subset: str = ""               # role names, comma-separated, or a number: the first so many; empty: all
    splits: tuple[str, ...] = SPLITS
    generalization: str = "instruction"  # which English RoleBench: its test has new questions, or new roles ("role")
    samples_per_role: int = 0           # training questions of a role in each split: the first so many; 0: all
    answers: str = "all"                # of several to a question: a row each; or the first; or one an epoch, sampled
    out: str = "runs/demo"
    template: str = "auto"              # a prompt template of data.py; auto: by the tokenizer's chat template
    role_instruction: bool | None = None  # tell the role in the prompt; default: only if neither A nor B knows it
    max_length: int = 1024              # tokens of a row
    epochs: float = 3.0
    max_steps: int = 0                  # optimizer steps; 0: by epochs
    batch_size: int = 8                 # samples of a micro-batch: the set I of Eq. 7
    grad_accum: int = 1
    balance_roles: bool = False         # every micro-batch: at least two roles, and two samples of one role
    lr: float = 1e-4
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = 0.1            # tau of Eq. 7
    lambda_min: float = 0.0             # of Eq. 8; lambda_max 0 is "w/o HCL"
    lambda_max: float = 0.3
    lambda_start_epoch: float = 1.0
    lambda_schedule: str = "linear"     # or cosine
    contrast_anchor: str = "role"       # or response, as in the authors' code
    pool: str = "last"                  # or before_eos, mean: which tokens of a response stand for it in Eq. 5
    precision: str = "auto"             # fp32, bf16, fp16
    compile: bool = False
    checkpoint_activations: bool = False
    seed: int = 42
    device: str = "auto"
    save_every: int = 500               # steps between checkpoints
    log_every: int = 10                 # steps between looks at the GPU
    score_limit: int = 500              # test lines per split scored at the end; 0: none
    max_new_tokens: int = 128           # of each scored answer


CHOICES = {"method": tuple(METHODS), "language": ("en", "zh", "all"), "generalization": ("instruction", "role"),
           "answers": ("all", "first", "sampled"), "lambda_schedule": ("linear", "cosine"),
           "contrast_anchor": ("role", "response"), "pool": ("last", "before_eos", "mean"),
           "precision": ("auto", "fp32", "bf16", "fp16")}
POSITIVE = {"rank", "alpha", "role_dim", "layer_dim", "hidden_dim", "head_rank", "max_length", "epochs", "batch_size",
            "grad_accum", "lr", "max_grad_norm", "temperature", "save_every", "log_every", "max_new_tokens"}
MOST = {"adapter_dropout": 0.99, "warmup_ratio": 1.0, "seed": 2.0 ** 62}
KEYS = {f.name: f for f in dataclasses.fields(Config) if f.name != "num_roles"}      # the data says how many roles


def whole(value):
    """An int from 3, 3.0 or "3"."""
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError
    return int(float(value))


def names(value):
    """A tuple of names from a list or from "a, b"."""
    return tuple(part.strip() for part in (value.split(",") if isinstance(value, str) else value) if part.strip())


TRUTH = {"true": True, "false": False}
CONVERT = {int: whole, float: float, str: str, tuple[str, ...]: names,
           bool: lambda v: TRUTH[str(v).lower()], bool | None: lambda v: (TRUTH | {"none": None})[str(v).lower()]}


def checked(values, origin):
    """{key: value} with each value of its key's type; ValueError names `origin`, the key and what is wrong."""
    result = {}
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            raise ValueError(f"{origin}: there is no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        try:
            result[key] = CONVERT[KEYS[key].type](value)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError(f"{origin}: {key} cannot be {value!r}") from None
        if key in CHOICES and result[key] not in CHOICES[key]:
            raise ValueError(f"{origin}: {key} is {value!r}; choose {', '.join(CHOICES[key])}")
        if KEYS[key].type in (int, float) and not result[key] <= (most := MOST.get(key, sys.float_info.max)):
            raise ValueError(f"{origin}: {key} is {value}, but it can be {most:g} at most")
        if KEYS[key].type in (int, float) and (result[key] < 0 or result[key] == 0 and key in POSITIVE):
            least = "positive" if key in POSITIVE else "0 or more"
            raise ValueError(f"{origin}: {key} is {value}, but it has to be {least}")
    return result


def read_config(path):
    """The keys of a JSON file, checked. "extends" names a file beside it whose keys it changes; keys may stand in
    groups, objects whose names say where the values are from."""
    try:
        values = json.loads(Path(path).read_text("utf8"))
    except json.JSONDecodeError as e:
        raise ValueError(f"{path}:{e.lineno}: not JSON ({e.msg})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a JSON object of keys is expected")
    base = {}
    if "extends" in values:
        other = values.pop("extends")
        if not isinstance(other, str) or (Path(path).parent / other).resolve() == Path(path).resolve():
            raise ValueError(f"{path}: \"extends\" has to name another file")
        base = read_config(Path(path).parent / other)
    groups = [v if isinstance(v, dict) else {k: v} for k, v in values.items()]
    return base | checked({k: v for group in groups for k, v in group.items()}, path)


class Parser(argparse.ArgumentParser):
    """argparse that complains in one line."""
    def error(self, message):
        raise ValueError(f"{message} (--help lists what there is)")


def parse_args(argv):
    """(Config, folder to resume or None). The command line wins over --config, and that over the defaults."""
    parser = Parser(description="Train a Hyper Model. Without --model or --config: the demo, configs/tiny.json.",
                    allow_abbrev=False)
    parser.add_argument("--config", help="a JSON file of keys")
    parser.add_argument("--resume", help="a run folder to go on with, under its own config")
    source = inspect.getsource(AdapterConfig) + inspect.getsource(Config)
    meanings = dict(re.findall(r"^    (\w+): .*?# +(.+)$", source, re.M))                # the comments are the help
    for name, field in KEYS.items():
        flag = {"nargs": "?", "const": "true"} if field.type in (bool, bool | None) else {}
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        text = f"{meanings.get(name, '')} {'; '.join(CHOICES.get(name, ()))} (default: {field.default})"
        parser.add_argument(*spellings, dest=name, default=argparse.SUPPRESS, metavar="VALUE",
                            help=text.strip().replace("%", "%%"), **flag)
    given = vars(parser.parse_args(argv))
    config, resume = given.pop("config"), given.pop("resume")
    if resume:
        if config or given:
            raise ValueError("--resume takes everything from the run's config.json: no other key goes with it")
        saved = evaluation.read_run(resume)
        return Config(**checked({k: v for k, v in saved.items() if k in KEYS}, resume)), Path(resume)
    if not config and "model" not in given:
        config = "configs/tiny.json"
    values = (read_config(config) if config else {}) | checked(given, "command line")
    if not values.get("model") or not values.get("data"):
        raise ValueError("both --model and --data are needed")
    return Config(**values), None


def resolve(cfg):
    """`cfg` with every "auto" decided for this machine."""
    device = evaluation.pick_device(cfg.device)
    if device.startswith("cuda") and dist.is_initialized():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    precision = cfg.precision
    if precision == "auto":
        precision = "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    told = cfg.role_instruction
    if told is None:
        told = set(METHODS[cfg.method]) == {"shared"}
    return dataclasses.replace(cfg, device=device, precision=precision, role_instruction=told)


def lr_at(step, total, cfg):
    """Learning rate at a step: linear warm-up over warmup_ratio of the run, then a cosine to 0."""
    warmup = round(cfg.warmup_ratio * total)
    if step < warmup:
        return cfg.lr * (step + 1) / warmup
    return cfg.lr * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


# ------------------------------------------------------------------------------------------------ files of a run
def write_atomically(path, write):
    """write(temporary path), flushed to disk, then renamed: `path` is either what it was or all of the new."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path, value):
    """Readable JSON, atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    write_atomically(path, lambda p: p.write_text(text, "utf8"))


def digest(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_folder(out):
    """`out`, or out-2, out-3, ... if a run is there already: nothing is ever overwritten."""
    path, n = Path(out), 1
    while (path / "config.json").exists():
        n += 1
        path = Path(f"{out}-{n}")
    if n > 1:
        print(f"{out} holds a run already: this one goes to {path}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def save_checkpoint(run, step, model, optimizer, scaler):
    """Writes checkpoint/<step>.safetensors and then, as its seal, <step>.json with its checksum; keeps the last two.

    In it: trainable tensors, AdamW's moments, the loss scale, every random state. The data order needs only the step.
    All processes call it and the first one writes. OSError, with the old ones untouched, if it cannot (a full disk).
    """
    rank, processes = world()
    state = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
    states = [state] * processes
    if processes > 1:
        dist.all_gather_object(states, state)
    if rank:
        return
    folder = run / "checkpoint"
    folder.mkdir(exist_ok=True)
    tensors = {f"param/{name}": p.detach() for name, p in model.trainable().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{key}": value for key, value in moments.items()}
    tensors |= {f"rng/{r}/{key}": value for r, state in enumerate(states) for key, value in state.items()}
    tensors = {k: v.cpu().contiguous() for k, v in tensors.items()}
    path = folder / f"{step:08d}.safetensors"
    try:
        write_atomically(path, lambda p: save_file(tensors, p))
        write_json(path.with_suffix(".json"), {"step": step, "sha256": digest(path), "processes": processes,
                                               "scaler": scaler.state_dict()})
    except (OSError, SafetensorError) as e:
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        raise OSError(f"{path} cannot be written ({e}); the checkpoints before it are whole: make room, then go on "
                      f"with python train.py --resume {run}") from None
    for old in sorted(folder.glob("*.json"))[:-CHECKPOINTS_KEPT]:
        old.unlink()                                                     # the seal first
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(run, model, optimizer, scaler):
    """Restores the newest checkpoint whose seal fits and returns its step, 0 if none was written yet.

    ValueError if all are broken, or if one belongs to another model or number of processes.
    """
    rank, processes = world()
    seals = sorted((run / "checkpoint").glob("*.json"), reverse=True)
    for seal in seals:
        path = seal.with_suffix(".safetensors")
        try:
            state = json.loads(seal.read_text("utf8"))
            if digest(path) != state["sha256"]:
                raise ValueError("its checksum is wrong")
        except (ValueError, OSError, KeyError) as e:
            print(f"{path} is broken ({e}): trying the one before")
            continue
        if state["processes"] != processes:
            raise ValueError(f"{path} was written by {state['processes']} processes, these are {processes}: resume "
                             f"with torchrun --nproc_per_node {state['processes']}")
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        model.load_trainable({k[6:]: v for k, v in tensors.items() if k.startswith("param/")}, path)
        moments = {}
        for key, value in tensors.items():
            if key.startswith("adam/"):
                _, index, name = key.split("/")
                moments.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(tensors[f"rng/{rank}/cpu"])
        if f"rng/{rank}/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[f"rng/{rank}/cuda"])
        return state["step"]
    if seals or (run / "adapter.safetensors").exists():
        raise ValueError(f"{run} has no usable checkpoint: start anew with another --out")
    return 0


class Metrics:
    """metrics.jsonl: a line per step. What the GPU knows is fetched for `log_every` steps at once, so no step waits."""
    def __init__(self, run, first_step):
        self.run, self.path, self.pending, self.since = run, run / "metrics.jsonl", [], time.time()
        if world()[0]:
            self.path = Path(os.devnull)                                 # the first process writes for all
            return
        lines = self.path.read_text("utf8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < first_step]
        write_atomically(self.path, lambda p: p.write_text("".join(line + "\n" for line in kept), "utf8"))

    def add(self, line, rows, measured):
        """line: what the host knows of a step; rows: those it saw; measured: (3,) ce, contrastive, grad_norm."""
        self.pending.append((line, rows, measured))

    def flush(self):
        """Writes the pending lines and returns the last; FloatingPointError for a loss that is not finite."""
        now, tokens = time.time(), sum(line["tokens"] for line, _, _ in self.pending)
        values = torch.stack([measured for _, _, measured in self.pending]).tolist()
        with open(self.path, "a", encoding="utf8") as file:
            for (line, rows, _), (ce, contrastive, norm) in zip(self.pending, values):
                if not math.isfinite(ce + contrastive):
                    good = max((p.stem for p in (self.run / "checkpoint").glob("*.json")), default="none")
                    raise FloatingPointError(f"the loss of step {line['step']} is not finite (rows {rows}); last good "
                                             f"checkpoint: {good}. Try a lower --lr, or --precision bf16 or fp32")
                line |= {"loss": total_loss(ce, contrastive, line["lambda"]), "ce": ce,
                         "contrastive": contrastive if line["lambda"] else None,
                         "grad_norm": norm if math.isfinite(norm) else None, "skipped": not math.isfinite(norm),
                         "tokens_per_s": round(tokens / max(now - self.since, 1e-9), 1)}
                file.write(json.dumps(line) + "\n")
        self.pending, self.since = [], now
        return line


# --------------------------------------------------------------------------------------------------------- training
def world():
    """(this process's rank, number of processes): (0, 1) without torchrun."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def backward(model, batches, cfg, lam, scaler, tokens=None, parts=None):
    """Accumulates the gradient of Eq. 6 over micro-batches. Returns their (ce, contrastive), detached.

    tokens, parts: supervised tokens and micro-batches of the whole step, where other processes have their share of it.
    """
    tokens, parts = tokens or sum(len(b.targets) for b in batches), parts or len(batches)
    device = model.backbone.device
    measured = [torch.zeros(2, device=device)]
    for batch in batches:
        batch = batch.to(device)
        with model.speaking_as(batch.role_ids):            # backward in here too: recomputed blocks need their voice
            hidden = model.backbone.hidden(batch.input_ids).flatten(0, 1)              # (B * T, C)
            head = model.backbone.lm_head.weight
            ce = response_cross_entropy(hidden[batch.supervised], head, batch.targets) / tokens
            contrastive = torch.zeros_like(ce)
            if lam:
                e_t = pool_response(hidden, batch.pooled, batch.pooled_rows, len(batch.input_ids))
                roles = batch.role_ids.to(device, non_blocking=True)
                contrastive = hyper_contrastive_loss(*model.project(roles, e_t), roles, cfg.temperature,
                                                     cfg.contrast_anchor) / parts
            scaler.scale(total_loss(ce, contrastive, lam)).backward()
        measured.append(torch.stack((ce, contrastive)).detach())
    return torch.stack(measured).sum(0)


def sum_over_processes(params, measured):
    """Adds up the gradients of `params`, and the step's losses, over all processes: one message, all that travels.

    Only what has a gradient this step may come: for AdamW a gradient of zeros is not the same as none."""
    if world()[1] == 1:
        return measured
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in params] + [measured]
    flat = torch.cat([part.flatten().float() for part in parts])
    dist.all_reduce(flat)
    *grads, measured = flat.split([part.numel() for part in parts])
    for p, g in zip(params, grads):
        p.grad = g.view_as(p)
    return measured


def anybody(asked, device):
    """Whether any process was asked to stop; a signal reaches them at different steps, so they have to agree."""
    votes = torch.tensor([len(asked)], device=device)
    dist.all_reduce(votes)
    return votes.item() > 0


def contrast_pairs(micro_batches):
    """What Eq. 7 had to work with in a step, from the rows of its micro-batches: roles of one (their mean), and ordered
    pairs of one role (positives, beside each sample itself) and of two (negatives), in all."""
    counts = [Counter(r.role_id for r in rows).values() for rows in micro_batches]
    return {"roles": sum(map(len, counts)) / len(counts), "positives": sum(n * (n - 1) for c in counts for n in c),
            "negatives": sum(n * (sum(c) - n) for c in counts for n in c)}


def fit(model, tokenizer, rows, cfg, run, resume):
    """The loop. Returns True when all steps are done, False when a signal ended it (after a checkpoint)."""
    def batches_of(epoch):
        return batch_order(rows, cfg.batch_size, cfg.seed, epoch, cfg.answers == "sampled", cfg.balance_roles)
    (rank, processes), order = world(), batches_of(0)
    per_step = cfg.grad_accum * processes                  # micro-batches
    steps_per_epoch = math.ceil(len(order) / per_step)
    total = cfg.max_steps or max(1, round(cfg.epochs * steps_per_epoch))
    params = list(model.trainable().values())
    without_hcl = [p for name, p in model.trainable().items() if not name.startswith("projections")]
    optimizer = torch.optim.AdamW(params, lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    scaler = torch.amp.GradScaler(model.backbone.device.type, enabled=cfg.precision == "fp16")
    first = load_checkpoint(run, model, optimizer, scaler) if resume else 0
    print(f"{len(rows)} rows, {sum(map(len, order))} of them an epoch, in {steps_per_epoch} steps "
          f"({padding_share(rows, order):.1%} padding); {total} steps{f', from step {first}' if first else ''}")
    model.train()
    model.backbone.checkpoint_activations = cfg.checkpoint_activations
    if cfg.compile:
        model.backbone.compile_blocks()
    asked = []                                             # signals that asked for an end
    handlers = {s: signal.signal(s, lambda number, _: asked.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    metrics, done = Metrics(run, first), first
    bar = tqdm(range(first, total), cfg.method, initial=first, total=total, dynamic_ncols=True, disable=rank > 0)
    for step in bar:
        epoch, index = divmod(step, steps_per_epoch)
        if index == 0 or step == first:
            order = batches_of(epoch)
        group = order[index * per_step:(index + 1) * per_step]
        step_rows = [[rows[i] for i in chosen] for chosen in group]
        batches = [collate(chosen, tokenizer.eos_id, cfg.pool) for chosen in step_rows[rank::processes]]
        supervised = sum(len(r.ids) - r.prompt for chosen in step_rows for r in chosen)
        lam = lambda_at(step / steps_per_epoch, cfg.lambda_start_epoch, total / steps_per_epoch, cfg.lambda_min,
                        cfg.lambda_max, cfg.lambda_schedule) if model.projections is not None else 0.0
        for g in optimizer.param_groups:
            g["lr"] = lr_at(step, total, cfg)
        measured = backward(model, batches, cfg, lam, scaler, supervised, len(group))
        measured = sum_over_processes(params if lam else without_hcl, measured)
        scaler.unscale_(optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(params, cfg.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        metrics.add({"step": step, "epoch": round(step / steps_per_epoch, 4), "lambda": lam, "lr": g["lr"],
                     **contrast_pairs(step_rows), "tokens": sum(len(r.ids) for chosen in step_rows for r in chosen)},
                    group, torch.cat((measured, grad_norm[None])))
        done = step + 1
        stop = bool(asked) if processes == 1 else done % cfg.log_every == 0 and anybody(asked, model.backbone.device)
        last = done == total or stop
        if last or done % cfg.save_every == 0 or done % cfg.log_every == 0:
            line = metrics.flush()
            bar.set_postfix({k: f"{line[k]:.3f}" for k in ("ce", "contrastive") if line[k] is not None}
                            | {"tok/s": f"{line['tokens_per_s']:.0f}"})
        if last or done % cfg.save_every == 0:             # after the flush: what is saved has finite losses behind it
            save_checkpoint(run, done, model, optimizer, scaler)
        if stop:
            break
    bar.close()
    for s, handler in handlers.items():
        signal.signal(s, handler)
    return done == total


def versions():
    """What made a run: python, torch and the commit, where there is one."""
    commit = None
    if shutil.which("git"):
        command = ["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    return {"python": platform.python_version(), "torch": torch.__version__, "git_commit": commit}


def run_training(argv):
    """Everything from the command line to the scores."""
    cfg, resume = parse_args(argv)
    cfg = resolve(cfg)
    torch.manual_seed(cfg.seed)
    folder = fetch(cfg.data)
    load = functools.partial(load_rolebench, folder, cfg.language, splits=cfg.splits, generalization=cfg.generalization)
    samples, tests = load("train"), load("test") if cfg.score_limit else []
    if cfg.samples_per_role:
        samples = first_of_each(samples, cfg.samples_per_role)
    if cfg.answers == "first":
        samples = [dataclasses.replace(s, answers=s.answers[:1]) for s in samples]
    told_alone = cfg.role_instruction and set(METHODS[cfg.method]) == {"shared"}       # plays whomever the prompt names
    everyone = samples + tests if told_alone else samples
    roles = choose_roles(everyone, cfg.role_subset)
    if resume and roles != (known := evaluation.read_run(resume)["roles"]):
        raise ValueError(f"{resume} is about {len(known)} roles and {folder} about {len(roles)} or others")
    if strangers := {s.role for s in tests} - {s.role for s in everyone}:
        raise ValueError(f"test lines of {folder} are about roles that training does not have: "
                         f"{', '.join(sorted(strangers))}; --score-limit 0 trains without scoring")
    profiles = {role: text for role, text in load_profiles(folder, cfg.language).items() if role in roles}
    model, tokenizer = evaluation.build(vars(cfg), len(roles), cfg.device)
    print(f"{cfg.method} on {cfg.model}: {len(roles)} roles, {cfg.device}, {cfg.precision}\n{model.describe()}")
    rows, cut, dropped = encode_rows([s for s in samples if s.role in roles], roles, tokenizer, cfg.max_length,
                                     profiles if cfg.role_instruction else None)
    if cut or dropped:
        print(f"max_length {cfg.max_length}: {cut} rows lose the end of their answer, {dropped} are left out: "
              f"their prompt alone is longer")
    if cfg.balance_roles:                                  # can it be had? Better known before a folder is made
        batch_order(rows, cfg.batch_size, cfg.seed, 0, cfg.answers == "sampled", True)
    chief = world()[0] == 0
    run = resume or (new_folder(cfg.out) if chief else Path(cfg.out))
    if not resume and chief:
        write_json(run / "roles.json", roles)
        write_json(run / "config.json", {k: v for k, v in vars(cfg).items() if k in KEYS} | versions()
                   | {"out": str(run), "profiles": profiles})
    torch.manual_seed(cfg.seed + world()[0])               # the weights are made: now each process its own dropout
    finished = fit(model, tokenizer, rows, cfg, run, resume)
    if dist.is_initialized():
        dist.destroy_process_group()
    if not chief:
        return
    if not finished:
        return print(f"stopped; go on with: python train.py --resume {run}")
    model.save(run)
    if tests := [s for s in tests if s.role in roles]:
        evaluation.report(model.eval(), tokenizer, run, evaluation.some(tests, cfg.score_limit))
    print(f"\nwrote {run}; talk with: python eval.py chat --run {run} --role \"{next(iter(roles))}\"")


def main():
    """Runs the training; bad input ends it with one line and exit code 1."""
    if "RANK" in os.environ and not dist.is_initialized():               # torchrun
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if world()[0]:
        sys.stdout = open(os.devnull, "w")                               # one voice is enough
    try:
        run_training(sys.argv[1:])
    except (ValueError, OSError, FloatingPointError) as e:
        sys.exit(1 if world()[0] else f"train.py: {e}")
    except KeyboardInterrupt:                              # before or after the loop, which ends with a checkpoint
        sys.exit("train.py: interrupted")


if __name__ == "__main__":
    main()
