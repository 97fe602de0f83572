"""model.py against transformers, on small models with every parameter randomised (default tolerances, T >= 16)."""
import json
import subprocess
import sys
from unittest import mock

import pytest
import torch
from conftest import ROOT, SMALL, randomise, small_backbone
from safetensors.torch import load_file, save_file
from test_tools import CHATGLM2

from model import ModelConfig, Transformer, rope_frequencies

transformers = pytest.importorskip("transformers")

LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
FAMILIES = {
    "llama": (transformers.LlamaConfig, {}),
    "llama, tied head, head_dim of its own": (transformers.LlamaConfig, dict(tie_word_embeddings=True, head_dim=16)),
    "llama, biases": (transformers.LlamaConfig, dict(attention_bias=True, mlp_bias=True)),
    "llama 3": (transformers.LlamaConfig, dict(rope_parameters=LLAMA3_ROPE)),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen2, tied head": (transformers.Qwen2Config, dict(tie_word_embeddings=True)),
    "mistral": (transformers.MistralConfig, dict(sliding_window=None)),
}


def reference(family):
    cls, changes = FAMILIES[family]
    config = cls(**SMALL, **changes)
    return randomise(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", [1, 4])
def test_logits_and_greedy_ids_equal_transformers(family, shards, tmp_path):
    theirs = reference(family)
    theirs.save_pretrained(tmp_path, max_shard_size="5GB" if shards == 1 else "60KB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards > 1)
    ours = Transformer.from_pretrained(tmp_path)
    ids = torch.randint(SMALL["vocab_size"], (3, 40))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits)
        prompt = ids[:1, :20]
        expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False,
                                   pad_token_id=0, eos_token_id=None)[0, 20:]
        cache, token, got = ours.new_cache(1, 64), prompt, []
        for t in range(24):
            logits = ours(token, cache) if t == 0 else ours(token, cache, torch.tensor([19 + t]))
            token = logits[:, -1:].argmax(-1)
            got.append(token.item())
    assert got == expected.tolist()


def chatglm_folder(folder, theirs):
    """The weights of a GlmForCausalLM, the same computation with unfused names, as ChatGLM2's authors ship theirs."""
    c = theirs.config
    state = {}
    for key, tensor in theirs.state_dict().items():
        for ours, glm in (("model.embed_tokens", "transformer.embedding.word_embeddings"), ("lm_head", "transformer.output_layer"),
                          ("model.norm", "transformer.encoder.final_layernorm"), ("model.layers", "transformer.encoder.layers"),
                          ("self_attn.o_proj", "self_attention.dense"), ("gate_up_proj", "dense_h_to_4h"), ("down_proj", "dense_4h_to_h")):
            key = key.replace(ours, glm)
        if "q_proj" in key:
            parts = [theirs.state_dict()[f"model.layers.{key.split('.')[3]}.self_attn.{p}_proj.{key.split('.')[-1]}"] for p in "qkv"]
            key, tensor = key.replace("self_attn.q_proj", "self_attention.query_key_value"), torch.cat(parts)
        if "_proj" not in key:
            state[key] = tensor.contiguous().clone()
    state["transformer.rotary_pos_emb.inv_freq"] = torch.ones(4)
    (folder / "config.json").write_text(json.dumps(dict(
        model_type="chatglm", padded_vocab_size=c.vocab_size, hidden_size=c.hidden_size, ffn_hidden_size=c.intermediate_size,
        num_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads, multi_query_attention=True,
        multi_query_group_num=c.num_key_value_heads, kv_channels=c.head_dim, seq_length=128, layernorm_epsilon=c.rms_norm_eps,
        add_qkv_bias=True, add_bias_linear=False, rmsnorm=True, post_layer_norm=True, tie_word_embeddings=False)))
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, keys in shards.items():
        torch.save({k: state[k] for k in keys}, folder / file)
    index = {"weight_map": {k: file for file, keys in shards.items() for k in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_chatglm2_equals_transformers_glm(tmp_path):
    config = transformers.GlmConfig(**SMALL | dict(head_dim=16, partial_rotary_factor=0.5, attention_bias=True, pad_token_id=0))
    theirs = randomise(transformers.GlmForCausalLM(config)).eval()
    chatglm_folder(tmp_path, theirs)
    ours, ids = Transformer.from_pretrained(tmp_path), torch.randint(97, (3, 40))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids), expected)
        cache = ours.new_cache(3, 40)
        ours(ids[:, :20], cache)
        for t in range(20, 40):
            torch.testing.assert_close(ours(ids[:, t:t + 1], cache, torch.full((3,), t))[:, 0], expected[:, t])


@pytest.mark.parametrize("key, value", [("rmsnorm", False), ("add_bias_linear", True), ("quantization_bit", 4), ("pre_seq_len", 128)])
def test_what_chatglm2_might_also_be_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        ModelConfig.from_hf({"model_type": "chatglm", key: value})


def test_rope_scaling_in_the_old_spelling_is_the_same():
    new = SMALL | dict(model_type="llama", rope_parameters=LLAMA3_ROPE)
    old = SMALL | dict(model_type="llama", rope_theta=500000.0, rope_scaling={k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"})
    a, b = (rope_frequencies(ModelConfig.from_hf(c)) for c in (new, old))
    assert torch.equal(a, b) and not torch.equal(a, rope_frequencies(ModelConfig.from_hf(SMALL | dict(model_type="llama", rope_theta=500000.0))))


def test_cached_decoding_of_ragged_rows_equals_the_full_forward(backbone):
    lengths, T, S = torch.tensor([5, 17, 11]), 17, 40
    ids = torch.randint(97, (3, S))
    with torch.no_grad():
        full = backbone(ids)
        cache = backbone.new_cache(3, S)
        backbone(ids[:, :T].masked_fill(torch.arange(T) >= lengths[:, None], 0), cache)    # rubbish beyond each length
        for step in range(20):
            at = lengths + step
            logits = backbone(ids[torch.arange(3), at][:, None], cache, at)
            torch.testing.assert_close(logits[:, 0], full[torch.arange(3), at])


def test_activation_checkpointing_changes_no_gradient(backbone):
    ids = torch.randint(97, (2, 16))
    for p in backbone.parameters():
        p.requires_grad_(True)
    grads = []
    for on in (False, True):
        backbone.checkpoint_activations = on
        backbone.zero_grad()
        backbone(ids).square().mean().backward()
        grads.append([p.grad.clone() for p in backbone.parameters()])
    torch.testing.assert_close(*grads)


def test_bf16_files_load_in_any_dtype_and_bin_files_too(tmp_path):
    theirs = reference("qwen2").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ids = torch.randint(97, (2, 20))
    expected = Transformer.from_pretrained(tmp_path)(ids)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)   # .float() keeps bf16 angles
    torch.testing.assert_close(expected, theirs(ids).logits)
    assert Transformer.from_pretrained(tmp_path, torch.bfloat16).dtype == torch.bfloat16
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(Transformer.from_pretrained(tmp_path)(ids), expected)


@pytest.mark.parametrize("break_it, message", [
    (lambda s: s.pop("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight"),
    (lambda s: s.update(extra=torch.zeros(3)), "extra"),
    (lambda s: s.update({"model.norm.weight": torch.zeros(47)}), r"model.norm.weight \(47,\)"),
])
def test_tensors_that_do_not_fit_are_named(tmp_path, break_it, message):
    reference("llama").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    break_it(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        Transformer.from_pretrained(tmp_path)


@pytest.mark.parametrize("key, value", [
    ("model_type", "gpt2"), ("hidden_act", "gelu"), ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
    ("use_sliding_window", True), ("quantization_config", {"bits": 4}),
])
def test_what_is_not_implemented_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        ModelConfig.from_hf(SMALL | dict(model_type="qwen2") | {key: value})


def test_a_sliding_window_bounds_the_context():
    model = small_backbone(model_type="mistral", sliding_window=24)
    model(torch.zeros(1, 24, dtype=torch.long))
    with pytest.raises(ValueError, match="25 tokens"):
        model(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_holds_one_copy(tmp_path):
    """A bf16 checkpoint of 1 GB, loaded and run once: the peak of resident memory over the weights' size."""
    config = dict(model_type="llama", vocab_size=32000, hidden_size=2048, intermediate_size=5504, num_hidden_layers=8,
                  num_attention_heads=16, max_position_embeddings=128)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in Transformer(ModelConfig.from_hf(config)).state_dict().items()}
    save_file({k: torch.full(s, 0.01, dtype=torch.bfloat16) for k, s in shapes.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = (tmp_path / "model.safetensors").stat().st_size
    script = f"""
import re, torch
from model import Transformer
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
torch.randn(64, 64).bfloat16() @ torch.randn(64, 64).bfloat16()
before = peak()
model = Transformer.from_pretrained({str(tmp_path)!r}, torch.bfloat16)
assert all(p.sum().item() != 0 for p in model.parameters())          # every page is read
model(torch.zeros(1, 4, dtype=torch.long))
print((peak() - before) / {size})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    ratio = float(done.stdout)
    print(f"peak resident memory over {size / 1e9:.2f} GB of weights: {ratio:.2f}")
    assert 0.9 < ratio <= 1.3


def test_from_the_hub_come_only_the_files_that_are_needed(hub):
    folder, calls = hub
    theirs = reference("llama")
    theirs.save_pretrained(folder)
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja", "consolidated.pth", "README.md", "modeling_x.py"):
        (folder / name).write_text("{}")
    ids = torch.randint(97, (2, 20))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(Transformer.from_pretrained("somebody/llama")(ids), expected)
        (folder / "model.safetensors").unlink()
        torch.testing.assert_close(Transformer.from_pretrained("somebody/llama")(ids), expected)
    tokenizer = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    small = ["chat_template.jinja", "config.json", "generation_config.json"]
    assert calls[0] == [*small, "model.safetensors", *tokenizer]
    assert calls[1] == [*small, *tokenizer]                                              # no safetensors there, so ...
    assert calls[2] == [*small, "pytorch_model.bin", *tokenizer]


@pytest.mark.parametrize("error, message", [("GatedRepoError", "is gated"), ("RepositoryNotFoundError", "not available from the hub")])
def test_gated_and_missing_repositories_give_one_line(hub, monkeypatch, error, message):
    import huggingface_hub.errors as errors

    def refuse(name, **_):
        raise getattr(errors, error)("no entry\nmore lines", response=mock.MagicMock(headers={}))
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(FileNotFoundError, match=message) as raised:
        Transformer.from_pretrained("somebody/llama")
    assert "\n" not in str(raised.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Transformer.from_pretrained("nowhere/at-all")
    with pytest.raises(FileNotFoundError, match="config.json"):
        Transformer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SMALL | dict(model_type="llama")))
    with pytest.raises(FileNotFoundError, match="neither model.safetensors"):
        Transformer.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="broken"):
        Transformer.from_pretrained(tmp_path)


@pytest.mark.parametrize("config, key", [(dict(SMALL, model_type="qwen2"), "max_position_embeddings"), (CHATGLM2, "seq_length")])
def test_a_context_of_null_is_one_that_the_file_does_not_name(config, key):
    assert ModelConfig.from_hf(config | {key: None}).max_positions == 4096
