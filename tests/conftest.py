"""What the tests share: small backbones with every parameter randomised, and a throwaway data set."""
import contextlib
import fnmatch
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""                     # numbers are those of a CPU, everywhere; for a GPU: benchmarks.parity
signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell's background job starts with it ignored
os.environ.pop("PYTEST_ADDOPTS", None)                      # pytest has read it; one that a test starts is a run of its own
os.environ.setdefault("OMP_WAIT_POLICY", "passive")         # threads that spin while they wait are 30 x slower on a busy machine
if "PYTEST_XDIST_WORKER" in os.environ:                     # a process for each core: one thread each, also in what they start
    os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, os.environ.get("HYCORA_CORE", str(ROOT)))            # tools.exercises: a reader's own modules
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

from benchmarks import fake_cuda  # noqa: E402

if fake_cuda.why_not() is None:
    fake_cuda.install()                 # before the first backward pass, which counts the devices once and for all

from files import write_jsonl  # noqa: E402
from model import ModelConfig, Transformer  # noqa: E402

SMALL = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=128)


def randomise(module, scale=0.15):
    """Adds noise to every parameter: at a fresh model's norms of 1 and biases of 0, forgetting them shows nowhere."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * scale)
    return module


SEED = int(os.environ.setdefault("TEST_SEED", str(int.from_bytes(os.urandom(3), "big"))))             # of all workers of pytest -n


@pytest.fixture(autouse=True)
def seed():
    """Fresh inputs on every run; a test's inputs do not depend on which others ran."""
    torch.manual_seed(SEED)
    random.seed(SEED)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"TEST_SEED={SEED} (set it to repeat this run's inputs)")


def small_backbone(**changes):
    """A randomised Qwen2-like backbone in fp32: GQA, q/k/v bias."""
    config = ModelConfig.from_hf(SMALL | dict(model_type="qwen2") | changes)
    return randomise(Transformer(config)).requires_grad_(False).eval()


@pytest.fixture
def backbone():
    return small_backbone()


def write_rolebench(root, lines, language="en", split="role_specific", part="train"):
    """Writes RoleBench lines, given as (role, question, answers), where a reader expects them."""
    base = {"en": "rolebench-eng/instruction-generalization", "zh": "rolebench-zh"}[language]
    path = Path(root) / base / split / f"{part}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, [{"role": r, "question": q, "generated": a} for r, q, a in lines])
    return path


def records(path):
    """The lines of a JSONL file."""
    return [json.loads(line) for line in Path(path).read_text("utf8").splitlines()]


def command(module, *args, ok=True, stdin=""):
    """Runs the main() of a module of this repository in this process, as if from a terminal. ok: whether it has to succeed."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [module, *map(str, args)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf8"))
        try:
            importlib.import_module(module).main()
        except SystemExit as stop:
            code = stop.code
    if isinstance(code, str):                                            # as Python does at the end
        err.write(code + "\n")
        code = 1
    done = subprocess.CompletedProcess(module, code or 0, out.getvalue(), err.getvalue())
    assert ok is None or (done.returncode == 0) == ok, done.stderr[-2000:]
    return done


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub: a folder, served by the patterns it is asked for. Returns (folder, for each call the files that it got)."""
    calls = []
    folder = tmp_path / "hub"
    folder.mkdir()

    def snapshot_download(name, repo_type, allow_patterns):
        files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        calls.append(sorted(file for file in files if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns)))
        copy = tmp_path / f"cache-{len(calls)}"
        for file in calls[-1]:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, copy / file)
        return str(copy)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return folder, calls
