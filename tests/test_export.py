"""tools.export: adapters that peft loads, merged models that transformers loads, and nothing said that is not so."""
import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SMALL, randomise
from safetensors.torch import load_file, save_file
from test_layer import CHATGLM, DIMS, hyper_model
from test_layer import small_backbone as small

from hycora_layer import METHODS, AdapterConfig, HyperModel
from model import Transformer
from tools import export

FAMILIES = {"LlamaForCausalLM": "LlamaConfig", "Qwen2ForCausalLM": "Qwen2Config", "MistralForCausalLM": "MistralConfig"}


def pair(tmp_path, family="Qwen2ForCausalLM", method="hycora", tie=False):
    """(transformers' model, ours with random adapters) on the same random weights."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, FAMILIES[family])(**SMALL, tie_word_embeddings=tie)
    theirs = randomise(getattr(transformers, family)(config)).eval()
    theirs.save_pretrained(tmp_path / "base")
    ours = HyperModel(Transformer.from_pretrained(tmp_path / "base"), AdapterConfig(**DIMS | {"method": method})).eval()
    with torch.no_grad():
        for p in ours.trainable().values():
            p.add_(torch.randn_like(p) * 0.05)
    return theirs, ours


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_the_adapter_and_gives_the_same_logits(tmp_path, family):
    peft = pytest.importorskip("peft")
    theirs, ours = pair(tmp_path, family)
    ids = torch.randint(97, (2, 20))
    for role in (2, 0):
        assert export.write_adapter(ours, role, tmp_path / "base", tmp_path / f"r{role}") == 0
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "r2", adapter_name="r2").eval()
    loaded.load_adapter(tmp_path / "r0", "r0")
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, ours(ids, torch.tensor([2, 2])), rtol=1e-4, atol=1e-5)
        mixed = loaded(ids, adapter_names=["r0", "r2"]).logits
        torch.testing.assert_close(mixed, ours(ids, torch.tensor([0, 2])), rtol=1e-4, atol=1e-5)
    assert (mixed - ours.backbone(ids)).abs().max() > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_exports(tmp_path, method):
    peft = pytest.importorskip("peft")
    theirs, ours = pair(tmp_path, method=method)
    export.write_adapter(ours, 3, tmp_path / "base", tmp_path / "a")
    ids = torch.randint(97, (1, 20))
    with torch.no_grad():
        got = peft.PeftModel.from_pretrained(theirs, tmp_path / "a").eval()(ids).logits
        torch.testing.assert_close(got, ours(ids, torch.tensor([3])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family, tie", [(f, t) for f in FAMILIES for t in (False, True)])
def test_transformers_loads_the_merged_model(tmp_path, family, tie):
    transformers = pytest.importorskip("transformers")
    _, ours = pair(tmp_path, family, tie=tie)
    ids = torch.randint(97, (2, 20))
    with torch.no_grad():
        expected = ours(ids, torch.tensor([1, 1]))
        assert export.write_model(ours, 1, tmp_path / "base", tmp_path / "merged") < 1e-4
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-3, atol=1e-4)


def test_chatglm2_keeps_its_own_names(tmp_path):
    model = randomise(HyperModel(small(**CHATGLM), AdapterConfig(**DIMS)), 0.05).eval()
    export.write_adapter(model, 1, "THUDM/chatglm2-6b", tmp_path / "a")
    names = load_file(tmp_path / "a/adapter_model.safetensors").keys()
    layer = "base_model.model.transformer.encoder.layers.2."
    assert {n for n in names if n.startswith(layer)} == {f"{layer}{linear}.lora_{half}.weight" for half in "AB" for linear in (
        "self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")}


@pytest.mark.parametrize("spoil", ["alpha", "names", "values"])
def test_a_spoiled_adapter_is_noticed(tmp_path, spoil):
    model = randomise(hyper_model("hycora"), 0.05)
    export.write_adapter(model, 1, "base", tmp_path)
    path, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    tensors = load_file(path)
    if spoil == "alpha":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 1}))
    elif spoil == "names":
        tensors = {f"x.{k}": v for k, v in tensors.items()}
    else:
        tensors[next(iter(tensors))] += 1
    save_file(tensors, path)
    with pytest.raises((ValueError, KeyError)):
        export.verify(model, 1, tmp_path)


def test_the_command_exports_one_role_all_roles_and_a_merged_model(tmp_path):
    run = tmp_path / "run"
    args = ["--language", "zh", "--max-steps", "3", "--score-limit", "0", "--rank", "2", "--out", run]
    subprocess.run([sys.executable, "train.py", *args], cwd=ROOT, capture_output=True, check=True)

    def command(*args):
        return subprocess.run([sys.executable, "-m", "tools.export", "--run", run, *args], cwd=ROOT, capture_output=True, text=True)
    assert "read again: logits differ from the run's by at most 0" in command("--role", "孙悟空", "--out", tmp_path / "one").stdout
    assert command("--all", "--out", tmp_path / "all").returncode == 0
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == sorted(["孙悟空", "林黛玉"])
    assert command("--role", "林黛玉", "--merge", "--out", tmp_path / "m").returncode == 0 and (tmp_path / "m/tokenizer.json").is_file()
    for bad, message in ((["--role", "孙悟", "--out", tmp_path / "x"], "did you mean 孙悟空"), (["--out", tmp_path / "x"], "name one --role"),
                         (["--all", "--out", tmp_path / "one"], "is not empty")):
        done = command(*bad)
        assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
