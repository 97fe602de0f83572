"""tools.export: adapters that peft loads, merged models that transformers loads, and nothing said that is not so."""
import json

import pytest
import torch
from conftest import ROOT, SMALL, command, randomise
from safetensors.torch import load_file, save_file
from test_layer import CHATGLM, DIMS, hyper_model
from test_layer import small_backbone as small

import train
from checkpoint import load_run
from data import run_persona
from hycora_layer import METHODS, AdapterConfig, HyperModel
from model import Transformer
from tokenizer import Tokenizer, compile_template
from tools import export, peft_adapter
from tools.serving_files import write_serving_files

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
        peft_adapter.verify(model, 1, tmp_path)


def run_folder(tmp_path, *args):
    """A run of three steps on the tiny backbone, trained in this process."""
    train.run_training(["--language", "zh", "--max-steps", "3", "--score-limit", "0", "--rank", "2", "--out", str(tmp_path / "run"), *args])
    return tmp_path / "run"


@pytest.mark.parametrize("method", ["hycora", "lora"])
def test_a_merged_model_is_served_as_it_was_trained(tmp_path, method):
    """transformers, with nothing but the folder: the weights' dtype, the prompt of training with the persona, the stop tokens."""
    transformers = pytest.importorskip("transformers")
    run = run_folder(tmp_path, "--method", method)
    folder = tmp_path / "m"
    done = command("tools.export", "--run", run, "--role", "林黛玉", "--merge", "--out", folder)
    assert ("all roles of this run have the same weights" in done.stdout) == (method == "lora")
    model, tokenizer, config = load_run(run, "cpu")
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}, {"role": "user", "content": "And?"}]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ids = list(theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    assert ids == tokenizer.prompt("And?", run_persona("林黛玉", config), [("Who?", "Me.")])
    assert ("林黛玉" in theirs.decode(ids)) == (method == "lora")
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert merged.dtype == torch.float32 and set(merged.generation_config.eos_token_id) == tokenizer.stop_ids
    with torch.no_grad():
        torch.testing.assert_close(merged(torch.tensor([ids])).logits, model(torch.tensor([ids]), torch.tensor([config["roles"]["林黛玉"]])), rtol=1e-3, atol=1e-3)


def test_a_persona_that_other_engines_could_not_place_is_not_exported(tmp_path):
    tokenizer = Tokenizer(ROOT / "tiny/backbone")
    tokenizer.template = compile_template("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}...")
    config = {"model": "m", "method": "lora", "role_in_prompt": True, "profiles": {}, "precision": "fp32"}
    with pytest.raises(ValueError, match="the chat template of m refuses a system turn.*no system turns"):
        write_serving_files(tmp_path, "Ann", tokenizer, config, 8)
    write_serving_files(tmp_path, "Ann", tokenizer, config | {"role_in_prompt": False}, 760)
    assert "--max-lora-rank 760" in (tmp_path / "README.md").read_text()             # more than vLLM takes: its own error


def test_adapters_come_with_their_prompt_and_a_readme(tmp_path):
    transformers = pytest.importorskip("transformers")
    run = run_folder(tmp_path, "--method", "lora")
    command("tools.export", "--run", run, "--all", "--out", tmp_path / "all")
    _, tokenizer, config = load_run(run, "cpu")
    theirs = transformers.AutoTokenizer.from_pretrained(ROOT / "tiny/backbone")
    for role in config["roles"]:
        folder = tmp_path / "all" / role
        theirs.chat_template = (folder / "chat_template.jinja").read_text("utf8")
        ids = theirs.apply_chat_template([{"role": "user", "content": "谁？"}], add_generation_prompt=True, return_dict=False)
        assert list(ids) == tokenizer.prompt("谁？", run_persona(role, config))
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == sorted(tokenizer.stop_ids)
        readme = (folder / "README.md").read_text("utf8")
        assert "--max-lora-rank 8" in readme and "--generation-config . " in readme and '"model": "role"' in readme and "--lora role.gguf" in readme and run_persona(role, config) in readme and len(readme.splitlines()) <= 10


def test_half_precision_is_exported_as_it_is(tmp_path):
    """bf16, a GPU's default: the adapter to the bit, a merged model within the rounding of its weights."""
    transformers = pytest.importorskip("transformers")
    _, ours = pair(tmp_path)
    ours.backbone.to(torch.bfloat16)
    ids = torch.randint(97, (2, 20))
    with torch.no_grad():
        expected = ours(ids, torch.tensor([1, 1])).float()
        effect = (expected - ours.backbone(ids).float()).abs().max()
        assert export.write_adapter(ours, 1, tmp_path / "base", tmp_path / "adapter") == 0
        export.write_model(ours, 1, tmp_path / "base", tmp_path / "merged")
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").eval()
        assert merged.dtype == torch.bfloat16 and (merged(ids).logits.float() - expected).abs().max() < 0.25 * effect


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_model_that_is_not_the_run_is_refused(dtype, tmp_path, monkeypatch):
    _, ours = pair(tmp_path)
    ours.backbone.to(dtype)
    monkeypatch.setattr(export, "merge", lambda *_: None)
    with pytest.raises(ValueError, match="does not reproduce the run"):
        export.write_model(ours, 1, tmp_path / "base", tmp_path / "merged")


def test_the_command_exports_one_role_all_roles_and_a_merged_model(tmp_path):
    run = run_folder(tmp_path)
    done = command("tools.export", "--run", run, "--role", "孙悟空", "--out", tmp_path / "one")
    assert "read again: logits differ from the run's by at most 0" in done.stdout
    command("tools.export", "--run", run, "--all", "--out", tmp_path / "all")
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == sorted(["孙悟空", "林黛玉"])
    for bad, message in ((["--role", "孙悟", "--out", tmp_path / "x"], "did you mean 孙悟空"), (["--out", tmp_path / "x"], "name one --role"),
                         (["--all", "--out", tmp_path / "one"], "exists already")):
        assert message in command("tools.export", "--run", run, *bad, ok=False).stderr
