"""The run folder: build a model from its config, save and resume its training, load it when it is finished."""
from console import one_line

import hashlib
import itertools
import json
import platform
import re
import shutil
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from arguments import parse_values
from config import KEYS, Config, pick_device, resolve
from files import (
    claim_folder,
    fetch_model,
    locked,
    read_json,
    read_trained,
    reading,
    to_json,
    write_json,
    write_tensors,
)
from hycora_layer import AdapterConfig, HyperModel
from model import Transformer
from model_config import check_ids
from tokenizer import Tokenizer

ADVICE = "Try a lower --lr, or --precision bf16 or fp32"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINTS_KEPT = 2


# ----------------------------------------------------------------------------------------------------- build and load
def build(config, num_roles, device):
    """(HyperModel, Tokenizer) of a configuration dict: its backbone, freshly adapted."""
    folder = fetch_model(config["model"])
    tokenizer = Tokenizer(folder, config["template"])
    backbone = Transformer.from_pretrained(folder, DTYPES[config["precision"]], device)
    check_ids([tokenizer.stop_ids], backbone.config)
    keys = {f.name: config[f.name] for f in fields(AdapterConfig) if f.name != "num_roles"}
    return HyperModel(backbone, AdapterConfig(**keys, num_roles=num_roles)), tokenizer


def read_run(folder):
    """The config of a run folder: keys checked, missing ones at their defaults; "roles" is {name: id}, "out" the folder
    where the run is now."""
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.json")
    saved = read_json(path, "the keys of a run")
    keys = parse_values({key: value for key, value in saved.items() if key in KEYS}, path)

    profiles = saved.get("profiles", {})
    with reading(path, 'the keys of a run, among them "model" and "profiles", {role: description}'):
        if "model" not in saved:
            raise KeyError("model")
        if not all(isinstance(text, str) for text in profiles.values()):
            raise ValueError("a profile is not text")

    path = folder / "roles.json"
    roles = read_json(path, "{role: id}")
    with reading(path, "{role: id}, with the ids 0, 1, 2, ... in this order"):
        if not roles or json.dumps(list(roles.values())) != json.dumps(list(range(len(roles)))):
            raise ValueError(f"the ids are {one_line(list(roles.values()), 60)}")
    config = vars(resolve(Config(**keys | {"device": "auto"})))          # the run's may not exist here
    return saved | config | {"out": str(folder), "device": keys.get("device", "auto"), "profiles": profiles,
                             "roles": roles}


def load_run(folder, device="auto", compiled=False):
    """(model, tokenizer, config) of a run, ready to answer; config["roles"] is {name: id}.

    Of an unfinished run the newest checkpoint is loaded, and a line says so.
    """
    config = read_run(folder)
    model, tokenizer = build(config, len(config["roles"]), pick_device(device))
    if config.get("prompt", tokenizer.sample_prompt()) != tokenizer.sample_prompt():
        print(f"{config['model']} has another chat template now than when {folder} was trained: answers may suffer")
    if compiled:                                          # on a GPU with CUDA graphs: decoding is bound by launches
        on_gpu = model.backbone.device.type == "cuda"
        model.backbone.compile_blocks(mode="reduce-overhead" if on_gpu else None)
    if (Path(folder) / "adapter.safetensors").is_file():
        model.load(folder)
    else:
        step = load_unfinished(Path(folder), model)
        print(f"{folder} is not finished: this is its checkpoint of step {step}")
    return model.eval(), tokenizer, config


def new_folder(out):
    """`out`, or out-2, out-3, ... if that is not empty: nothing is ever overwritten. The folder gets an empty
    config.json, which shows every other process that it is taken."""
    for n in itertools.count(1):
        path = Path(out if n == 1 else f"{out}-{n}")
        with suppress(FileExistsError):
            claim_folder(path, "config.json")
            break

    if n > 1:
        print(f"{out} is not empty: this one goes to {path}")
    return path


@contextmanager
def reserved(run):
    """Reserves a run folder for this process while it trains, and removes what a killed process left half-written."""
    with locked(run / "roles.json"):                     # a file that is written once
        for leftover in [*run.glob(".*.tmp"), *run.glob("checkpoint/.*.tmp")]:
            leftover.unlink(missing_ok=True)
        yield


# keys that may change between two parts of a training: where, how long, what is written when
MAY_CHANGE = {"model", "data", "out", "epochs", "max_steps", "device", "compile", "checkpoint_activations",
              "save_every", "log_every", "test_every", "score_limit", "likelihood_limit", "max_new_tokens"}


def made_of(cfg, examples):
    """Digests of a training's data and settings: {"examples", "keys"}, for config.json."""
    data = hashlib.sha256()
    for example in examples:
        data.update(np.array([example.role_id, example.prompt_len, *example.ids, -1], np.int32).tobytes())
    keys = {key: value for key, value in vars(cfg).items() if key in KEYS and key not in MAY_CHANGE}
    return {"examples": data.hexdigest(), "keys": hashlib.sha256(to_json(keys, sort_keys=True).encode()).hexdigest()}


def check_same(run, now):
    """ValueError unless a run was started with the examples and keys that `made_of` finds now."""
    before = read_run(run).get("made_of", now)           # a run of an earlier version lacks it
    for what, value in now.items():
        if before.get(what) != value:
            raise ValueError(f"{run} was started with other {what}: undo the change, or start anew with another --out")


def versions(device):
    """What makes a run: versions of python and torch, the GPU if any, and the git commit, "-dirty" if files differ."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    commit = None
    if shutil.which("git"):
        command = ["git", "-C", Path(__file__).parent, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    return {"python": platform.python_version(), "torch": torch.__version__, "gpu": gpu, "git_commit": commit}


# --------------------------------------------------------------------------------------------------- save and resume
def rng_state(device):
    """The random state of this process: {"cpu": state}, and "cuda" where `device`, the model's, is a GPU."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def save_checkpoint(run, step, model, optimizer, scaler, rng_states):
    """Writes checkpoint/<step>.safetensors and then <step>.json, a seal with its checksum; keeps the last two.

    It holds the trainable tensors, AdamW's moments, the loss scale, and every process's random state; the order of the
    data follows from the step. Raises OSError, with the old checkpoints intact, if it cannot be written (a full disk).
    """
    folder = run / "checkpoint"
    folder.mkdir(exist_ok=True)
    path = folder / f"{step:08d}.safetensors"

    # everything as named tensors
    tensors = {f"param/{name}": p.detach() for name, p in model.trainable().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"adam/{index}/{name}"] = value
    for rank, state in enumerate(rng_states):
        for name, value in state.items():
            tensors[f"rng/{rank}/{name}"] = value

    # the seal comes last: a checkpoint without one was never finished
    try:
        write_tensors(path, tensors)
        seal = {"step": step, "sha256": digest(path), "processes": len(rng_states), "scaler": scaler.state_dict()}
        write_json(path.with_suffix(".json"), seal)
    except OSError as e:
        raise OSError(f"{e}; the checkpoints before it are whole: go on with python train.py --resume {run}") from None
    except FloatingPointError as e:
        raise FloatingPointError(f"{e}; last good checkpoint: {newest(run)}. {ADVICE}") from None

    # of the old ones the seal is deleted first
    for old in sorted(folder.glob("*.json"))[:-CHECKPOINTS_KEPT]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(run, model, optimizer, scaler, rank=0, processes=1):
    """Restores the newest checkpoint whose seal matches and returns its step, or 0 if none was written yet.

    Raises ValueError if all are broken, or if it belongs to another model or another number of processes.
    """
    for path, seal in usable_checkpoints(run):
        if seal["processes"] != processes:
            raise ValueError(f"{path} was written by {seal['processes']} processes, these are {processes}: resume "
                             f"with torchrun --nproc_per_node {seal['processes']}")
        restore(path, model, optimizer, rank)
        scaler.load_state_dict(seal["scaler"])
        return seal["step"]

    if any((run / "checkpoint").glob("*.json")) or (run / "adapter.safetensors").exists():
        raise ValueError(f"{run} has no usable checkpoint: start anew with another --out")
    return 0


def usable_checkpoints(run):
    """Yields (path, seal) of the checkpoints whose seal matches, the newest first; prints which are broken."""
    for seal_path in sorted((run / "checkpoint").glob("*.json"), reverse=True):
        path = seal_path.with_suffix(".safetensors")
        try:
            seal = read_seal(seal_path)
            if digest(path) != seal["sha256"]:
                raise ValueError("its checksum is wrong")
        except (ValueError, OSError) as e:
            print(f"{path} is broken ({e}): trying the one before")
            continue
        yield path, seal


def load_unfinished(run, model):
    """Loads the trained tensors of a run's newest usable checkpoint, and returns its step."""
    for path, seal in usable_checkpoints(run):
        tensors = read_trained(path)
        params = {name.removeprefix("param/"): p for name, p in tensors.items() if name.startswith("param/")}
        model.load_trainable(params, path)
        return seal["step"]
    raise FileNotFoundError(f"{run} is neither finished nor has it a checkpoint yet (--save-every): nothing to load")


def lengthen(run, lengths, total):
    """Records new `lengths`, "epochs" and "max_steps", in a run's config.json, if they differ.

    The old ones, and up to which step they held, are kept under "lengthened". A finished adapter is deleted, with its
    scores: the newest checkpoint has it too. ValueError if the run is past `total`, the steps of the new length.
    """
    saved = read_run(run)
    before = {key: saved[key] for key in lengths}
    if lengths == before:
        return
    step = next((seal["step"] for _, seal in usable_checkpoints(run)), 0)
    if total <= step:
        raise ValueError(f"{run} is at step {step} already, and the new length has {total}")
    config = read_json(run / "config.json")
    history = [*config.get("lengthened", []), {"step": step} | before]
    write_json(run / "config.json", config | lengths | {"lengthened": history})
    if step:
        stale = r"adapter\.safetensors|turns\.json|(scores|predictions|likelihood)(-\d+)?\.jsonl?"
        for path in [path for path in run.iterdir() if re.fullmatch(stale, path.name)]:
            path.unlink()


def read_seal(path):
    """The seal of a checkpoint."""
    seal = read_json(path, "a checkpoint's seal", {"step": (int, 0, 1e15), "processes": (int, 1, 1e6)})
    with reading(path, '{"step", "sha256", "processes", "scaler"}'):
        if not isinstance(seal["scaler"], dict) or not re.fullmatch("[0-9a-f]{64}", seal["sha256"]):
            raise ValueError("this is no seal")
        return {key: seal[key] for key in ("step", "sha256", "processes", "scaler")}


def newest(run):
    """The step of a run's newest checkpoint, or "none"."""
    return max((path.stem for path in (run / "checkpoint").glob("*.json")), default="none")


def restore(path, model, optimizer, rank):
    """Restores the tensors of a checkpoint; FileError if they do not fit."""
    params = {}
    moments = {}
    tensors = read_trained(path)
    with reading(path, "a checkpoint of this run"):
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "param":
                params[rest] = value
            elif kind == "adam":
                index, name = rest.split("/")
                moments.setdefault(int(index), {})[name] = value

        model.load_trainable(params, path)
        check_moments(moments, list(model.trainable().values()))
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        torch.set_rng_state(tensors[f"rng/{rank}/cpu"])
        if f"rng/{rank}/cuda" in tensors and model.backbone.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[f"rng/{rank}/cuda"], model.backbone.device)


def check_moments(moments, params):
    """ValueError unless AdamW's moments, {index: {name: tensor}}, have the shapes of the parameters they belong to."""
    for index, of_param in moments.items():
        shapes = {name: tuple(tensor.shape) for name, tensor in of_param.items()}
        shape = tuple(params[index].shape)
        if shapes != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
            raise ValueError(f"adam/{index} has the shapes {shapes}, its parameter has {shape}")


def digest(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
