"""Files: find them on disk or on the hub, read them with errors that name the place, write them whole or not at all.

Two context managers keep errors to one line. Within `reading`, anything that goes wrong with an input file becomes an
error that names the file and what was expected. Within `writing`, a full or read-only disk becomes an error that names
what could not be written.
"""
from console import is_out_of_memory, one_line

import json
import math
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

try:
    import fcntl
except ImportError:                     # Windows: nothing there keeps two processes out of one folder
    fcntl = None

ROOT = Path(__file__).resolve().parent
TOKENIZER_FILES = ["config.json", "generation_config.json", "tokenizer*", "chat_template.jinja"]
MODEL_FILES = [*TOKENIZER_FILES, "model*.safetensors", "model.safetensors.index.json"]


# --------------------------------------------------------------------------------------------------------- boundaries
class FileError(ValueError):
    """What is wrong with a file, in one line that names it."""


@contextmanager
def reading(path, expected):
    """Turns any error while a file is read and interpreted into a FileError that names the file.

    expected: what the file should hold, such as "a JSON object". OSErrors pass, since they name their file themselves.
    """
    try:
        yield
    except (FileError, OSError):
        raise
    except Exception as error:                           # no list of types covers all ways to be broken
        if is_out_of_memory(error):
            raise
        raise FileError(f"{path}: {what_is_wrong(error)}; expected here: {expected}") from None


def what_is_wrong(error):
    """Describes an exception that a broken file has raised."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error})"
    if isinstance(error, UnicodeDecodeError):
        return "not JSON (not UTF-8)"
    if isinstance(error, UnicodeEncodeError):
        return "half of a character (a lone surrogate)"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return one_line(error, 300)


@contextmanager
def writing(path):
    """A write that fails (a full disk, a read-only folder) becomes one OSError that says what was not written."""
    try:
        yield
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:
        reason = one_line(error, 200)
        raise OSError(f"{path} cannot be written ({reason}): make room, or choose another folder") from None


def check_numbers(record, ranges):
    """ValueError unless each key of `ranges`, {key: (type, least, most)}, is such a number, null, or missing."""
    for key, (kind, least, most) in ranges.items():
        value = record.get(key)
        if value is None:
            continue
        is_number = isinstance(value, kind if kind is int else (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            noun = "a whole number" if kind is int else "a number"
            raise ValueError(f"{key} is {value!r}, but it has to be {noun} from {least:g} to {most:g}")


# ------------------------------------------------------------------------------------------------------------ finding
def local_path(name):
    """The path of a file or folder, from here or from the repository's root; None if there is no such path."""
    for base in (Path(), ROOT):
        if name and (base / name).exists():
            return base / name
    return None


def lasting_name(name):
    """`name` as a run's config keeps it: a local path made absolute, a hub id as it is.

    Paths in the repository's tiny/ keep their short name, which `local_path` finds wherever the repository is.
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
    if folder.exists():
        raise FileNotFoundError(f"{name} is a file: a folder is expected here")
    if folder.is_absolute() or str(name).startswith("."):
        raise FileNotFoundError(f"{name}: no such folder")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError
    try:
        return Path(snapshot_download(name, repo_type=repo_type, allow_patterns=patterns))
    except GatedRepoError:
        raise FileNotFoundError(f"{name} is gated: accept its terms on the hub, then log in (hf auth login)") from None
    except Exception as e:                                # an unknown name, no network, a broken cache
        raise FileNotFoundError(f"{name}: no such folder, and not available from the hub "
                                f"({one_line(e, 200)})") from None


def fetch_model(name):
    """The folder of a backbone, local or from the hub; from the hub, .bin files only if there are no safetensors."""
    folder = fetch(name, MODEL_FILES)
    if not any(folder.glob("model*.safetensors")):
        folder = fetch(name, [*MODEL_FILES, "pytorch_model*"])
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: not a Hugging Face model folder")
    return folder


# ------------------------------------------------------------------------------------------------------------ reading
def read_jsonl(path):
    """Yields (place, dict) for each line; FileError names the file and line of one that is not a JSON object."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path}:{number}"
                yield place, parse_json(line, place)


def read_json(path, expected="a JSON object", numbers=None):
    """The dict in a JSON file; numbers: the ranges that `check_numbers` checks."""
    path = Path(path)
    record = parse_json(path.read_bytes(), path, expected)
    with reading(path, expected):
        check_numbers(record, numbers or {})
    return record


def parse_json(text, place, expected="a JSON object"):
    """The dict in UTF-8 bytes; FileError names its place."""
    with reading(place, expected):
        record = json.loads(text.rstrip(), parse_constant=refuse_constant)
        if not isinstance(record, dict):
            raise ValueError(f"a JSON object is expected, this is {type(record).__name__}")
        if b"\\ud" in text.lower():                     # a lone surrogate, which could not be written back
            json.dumps(record, ensure_ascii=False).encode("utf8")
    return record


def refuse_constant(name):
    """Refuses NaN and Infinity: JSON has neither, though Python's reader accepts them."""
    raise ValueError(f"{name} is no number")


def checkpoint_tensors(folder):
    """Yields (name, tensor) of a Hugging Face folder's weights, memory-mapped: one file or shards, safetensors or .bin.

    Raises FileNotFoundError for a missing file, FileError for a broken one.
    """
    for stem, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_bin)):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            shards = read_shard_names(index)
        elif (folder / stem).is_file():
            shards = [stem]
        else:
            continue

        for shard in shards:
            if not (folder / shard).is_file():
                raise FileNotFoundError(f"{folder / shard} is missing, though {index.name} names it")
            for name, tensor in read(folder / shard):
                if not tensor.is_floating_point():
                    raise FileError(f"{folder / shard}: {name} is {tensor.dtype}; expected here: weights that are not "
                                    f"quantised")
                yield name, tensor
        return
    raise FileNotFoundError(f"{folder} has neither model.safetensors nor pytorch_model.bin (nor an index of either)")


def read_shard_names(index):
    """The files that an index names; FileError unless they are names of files beside it."""
    with reading(index, '{"weight_map": {tensor: file beside this one}}'):
        shards = sorted(set(read_json(index)["weight_map"].values()))
        for shard in shards:
            if Path(shard).name != shard:
                raise ValueError(f"{shard!r} is not the name of a file in this folder")
    return shards


def read_safetensors(path):
    """Yields (name, tensor) of a safetensors file."""
    with reading(path, "a safetensors file"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                yield key, file.get_tensor(key)


def read_bin(path):
    """Yields (name, tensor) of a pytorch_model.bin; nothing but tensors is unpickled."""
    with reading(path, "a pytorch_model.bin of tensors"):
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise ValueError(f"this is {type(state).__name__} of other things than tensors")
        yield from state.items()


def read_trained(path):
    """{name: tensor} of a safetensors file that this project has written; FileError for a number that is not finite."""
    tensors = dict(read_safetensors(path))
    with reading(path, "what training has written"):
        check_finite(tensors)
    return tensors


def check_finite(tensors):
    """FloatingPointError names the tensor that holds a number that is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FloatingPointError(f"{name} holds a number that is not finite")


# ------------------------------------------------------------------------------------------------------------ writing
def write_atomically(path, write):
    """Calls write(temporary path), flushes it to disk, then renames it: `path` is always the old file or the new one.

    The temporary file is new and its name unpredictable, so that no link placed there is followed.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with writing(path):
        try:
            open(temporary, "x").close()
            mode = temporary.stat().st_mode
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)                        # some writers make a file that only its owner can read
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a UTF-8 text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf8"))


def to_json(value, **options):
    """JSON text; a number that is not finite becomes null, since JSON has none."""
    def finite(value):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, dict):
            return {key: finite(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(part) for part in value]
        return value
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, **options)


def write_json(path, value):
    """Writes readable JSON, atomically."""
    write_text(path, to_json(value, indent=1) + "\n")


def write_jsonl(path, records):
    """Writes one JSON object per line, atomically."""
    write_text(path, "".join(to_json(record) + "\n" for record in records))


def write_tensors(path, tensors):
    """Writes a safetensors file, atomically; FloatingPointError, with nothing written, for what is not finite."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        check_finite(tensors)
    except FloatingPointError as error:
        raise FloatingPointError(f"{path} is not written: {error}") from None
    metadata = {"format": "pt"}                          # one key: the order of several is not fixed
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


# ------------------------------------------------------------------------------------------- nothing is overwritten
@contextmanager
def claimed(*paths):
    """Creates output files, empty, before the work for them begins; FileExistsError if one exists already.

    So nothing is overwritten, and a folder that cannot be written to is noticed early. Those that are still empty at
    the end are removed.
    """
    made = []
    try:
        for path in map(Path, paths):
            try:
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    open(path, "x").close()
            except FileExistsError:
                raise FileExistsError(f"{path} exists already: nothing is overwritten, choose another --out") from None
            made.append(path)
        yield
    finally:
        for path in made:
            if path.is_file() and not path.stat().st_size:
                path.unlink()


@contextmanager
def new_folder_at(path):
    """A temporary folder to write into, renamed to `path` at the end, or removed if anything goes wrong.

    FileExistsError, before the work begins, for anything at `path` but an empty folder.
    """
    path = Path(path)
    if path.is_symlink() or path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists already: nothing is overwritten, choose another --out")
    temporary = path.absolute().with_name(f".{secrets.token_hex(8)}.tmp")
    with writing(path):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with writing(path):
            os.rename(temporary, path)                   # fails if there is something by now
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder):
    """OSError for a folder that no file can be written to; to be called before any work is done."""
    with writing(folder), tempfile.TemporaryFile(dir=folder):
        pass


def claim_folder(path, marker):
    """Creates a folder, or takes an empty one, and the empty file `marker` in it; FileExistsError if it is not empty.

    Of two processes that want the same folder, only one can create the marker.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FileExistsError(f"{path} is not empty: nothing is overwritten, choose another --out")
        open(path / marker, "x").close()


@contextmanager
def locked(path):
    """Locks a file against other processes that lock it in this way; ValueError if one of them holds it.

    The lock ends with the process, however that ends.
    """
    with open(path, "rb+") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path} is in use by another process: wait for its end, or stop it") from None
        except OSError:
            pass                                         # a file system without locks, as some clusters have
        yield
