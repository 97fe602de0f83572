"""Files: find them on disk or on the hub, read them with errors that name the place, write them whole or not at all."""
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

ROOT = Path(__file__).resolve().parent
MODEL_FILES = ["config.json", "generation_config.json", "tokenizer*", "*.safetensors", "*.safetensors.index.json"]


def local_path(name):
    """The path of a file or folder, from here or from the repository's root; None if there is no such path."""
    for base in (Path(), ROOT):
        if name and (base / name).exists():
            return base / name
    return None


def lasting_name(name):
    """`name` as a run's config keeps it: a local path made absolute, a hub id as it is.

    What the repository carries in tiny/ keeps its short name, which `local_path` finds wherever the repository is.
    """
    path = local_path(name)
    if path is None:
        return name
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT / "tiny") else path)


def fetch(name, patterns, repo_type="model"):
    """The folder `name` stands for: a local folder, or a hub id, which is downloaded and cached.

    patterns: which files of the repository are wanted. Raises FileNotFoundError with one line that says what to do.
    """
    folder = local_path(name) or Path(name)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(name).startswith("."):
        raise FileNotFoundError(f"{name}: no such folder")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError
    try:
        return Path(snapshot_download(name, repo_type=repo_type, allow_patterns=patterns))
    except GatedRepoError:
        raise FileNotFoundError(f"{name} is gated: accept its terms on the hub, then log in (hf auth login)") from None
    except Exception as e:                                # an unknown name, no network, a broken cache
        reason = str(e).strip().splitlines()[0]
        raise FileNotFoundError(f"{name}: no such folder, and not available from the hub ({reason})") from None


# ------------------------------------------------------------------------------------------------------------ reading
def read_jsonl(path):
    """Yields (place, dict) for each line; ValueError names the file and line of one that is not a JSON object."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path}:{number}"
                yield place, parse_json(line, place)


def parse_json(text, place):
    """The dict in a text or in UTF-8 bytes; ValueError names its place."""
    try:
        record = json.loads(text.rstrip())
    except ValueError as e:
        raise ValueError(f"{place}: not JSON ({e}); mend or delete it") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place}: a JSON object is expected, this is {type(record).__name__}")
    return record


def checkpoint_tensors(folder):
    """Yields (name, tensor) of a Hugging Face folder's weights, memory-mapped: one file or shards, safetensors or .bin.

    Raises FileNotFoundError for a missing file, ValueError for a broken one.
    """
    for stem, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_bin)):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            weight_map = json.loads(index.read_text("utf8"))["weight_map"]
            shards = sorted(set(weight_map.values()))
        elif (folder / stem).is_file():
            shards = [stem]
        else:
            continue

        for shard in shards:
            if not (folder / shard).is_file():
                raise FileNotFoundError(f"{folder / shard} is missing, though {index.name} names it")
            yield from read(folder / shard)
        return
    raise FileNotFoundError(f"{folder} has neither model.safetensors nor pytorch_model.bin (nor an index of either)")


def read_safetensors(path):
    """Yields (name, tensor) of a safetensors file; ValueError if it is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                yield key, file.get_tensor(key)
    except SafetensorError as e:
        raise ValueError(f"{path} is broken: {e}") from None


def read_bin(path):
    """Yields (name, tensor) of a pytorch_model.bin; nothing but tensors is unpickled."""
    yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True).items()


# ------------------------------------------------------------------------------------------------------------ writing
def write_atomically(path, write):
    """Calls write(temporary path), flushes it to disk, then renames it: `path` is the old file or the new one."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path, text):
    """Writes a UTF-8 text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf8"))


def write_json(path, value):
    """Writes readable JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path, records):
    """Writes one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def fetch_model(name):
    """The folder of a backbone, local or from the hub; from there, .bin only where there are no safetensors."""
    folder = fetch(name, MODEL_FILES)
    if not any(folder.glob("*.safetensors")):
        folder = fetch(name, [*MODEL_FILES, "pytorch_model*"])
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: not a Hugging Face model folder")
    return folder
