"""model.py against transformers, on small models with every parameter randomised (default tolerances, T >= 16)."""
import json

import pytest
import torch
from conftest import SMALL, randomise, small_backbone
from safetensors.torch import load_file, save_file

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
