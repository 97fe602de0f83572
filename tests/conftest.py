"""What the tests share: small backbones with every parameter randomised, and a throwaway data set."""
import json
import os
import random
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")         # threads that spin while they wait are 30 x slower on a busy machine

import torch  # noqa: E402

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, os.environ.get("HYCORA_CORE", str(ROOT)))            # tools.exercises: a reader's own modules
torch.set_num_threads(2)

from model import ModelConfig, Transformer  # noqa: E402

SMALL = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=128)


def randomise(module, scale=0.15):
    """Adds noise to every parameter: at a fresh model's norms of 1 and biases of 0, forgetting them shows nowhere."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * scale)
    return module


SEED = int(os.environ.get("TEST_SEED", int.from_bytes(os.urandom(3), "big")))


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
    path.write_text("".join(json.dumps({"role": r, "question": q, "generated": a}, ensure_ascii=False) + "\n"
                            for r, q, a in lines), "utf8")
    return path
