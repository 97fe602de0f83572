"""The tools: what they count, write and print."""
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from hycora_layer import METHODS, AdapterConfig
from model import ModelConfig
from tools.params import count

LLAMA2 = dict(model_type="llama", vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
              num_attention_heads=32)
QWEN2 = dict(model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
             num_attention_heads=28, num_key_value_heads=4)
CHATGLM2 = dict(model_type="chatglm", padded_vocab_size=65024, hidden_size=4096, ffn_hidden_size=13696, num_layers=28,
                num_attention_heads=32, multi_query_attention=True, multi_query_group_num=2, kv_channels=128, seq_length=32768,
                layernorm_epsilon=1e-5, add_qkv_bias=True)
# the paper's backbones: adapted linears, hycora exactly, then lora, ind-lora, neeko, rsp-a-rsp-b, mrs-a-rsp-b in millions
PAPER = [(CHATGLM2, 5, dict(head_rank=28), 112, 16_830_448, (14.82, 74.12, 74.69, 17.21, 16.94)),
         (QWEN2, 5, dict(head_rank=28), 196, 22_296_132, (20.19, 100.93, 101.93, 22.79, 22.37)),
         (LLAMA2, 95, dict(role_dim=128, layer_dim=64, hidden_dim=256), 224, 21_212_640, (19.99, 1898.91, 1920.70, 21.61, 21.27)),
         (LLAMA2, 95, dict(role_dim=256, layer_dim=128, hidden_dim=728), 224, 24_012_328, (19.99, 1898.91, 1920.70, 24.52, 24.07))]


@pytest.mark.parametrize("config, roles, dims, linears, hycora, others", PAPER)
def test_the_papers_parameter_counts(config, roles, dims, linears, hycora, others):
    counts = {m: count(ModelConfig.from_hf(config), AdapterConfig(method=m, num_roles=roles, **dims)) for m in METHODS}
    assert counts["hycora"] == (hycora, linears)
    got = [round(counts[m][0] / 1e6, 2) for m in ("lora", "ind-lora", "neeko", "rsp-a-rsp-b", "mrs-a-rsp-b")]
    assert got == pytest.approx(others, abs=0.011)


def test_the_formulas_of_the_docstring():
    R, r, k, d_c, d_l, d_h, N, C = 7, 4, 3, 6, 5, 16, 2, 48
    shapes = [(48, 48), (48, 16), (48, 16), (48, 48), (48, 80), (48, 80), (80, 48)]
    n, L = 3, 21
    config = ModelConfig.from_hf(dict(model_type="qwen2", vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=n,
                                      num_attention_heads=6, num_key_value_heads=2))
    lora = sum(n * r * (i + o) for i, o in shapes)
    E = R * d_c + L * d_l + 2 * (d_c + d_l) + (d_c + d_l + 1) * d_h + N * (2 * (d_h + 1) * d_h + 2 * d_h) + 2 * d_h
    P = (d_c + 1) * d_c + (C + 1) * d_c
    head_a, head_b = ([k * (d_h + 1) + (k + 1) * r * s[j] for s in shapes] for j in (0, 1))
    expected = {"lora": lora, "ind-lora": R * lora, "neeko": R * lora + L * R * 1024,
                "hycora": E + sum(head_a) + sum(n * r * o for _, o in shapes) + P, "rsp-a-rsp-b": E + sum(head_a + head_b) + P,
                "mrs-a-rsp-b": E + sum(head_b) + sum(n * r * i for i, _ in shapes) + P}
    dims = dict(num_roles=R, rank=r, head_rank=k, role_dim=d_c, layer_dim=d_l, hidden_dim=d_h, num_blocks=N)
    assert {m: count(config, AdapterConfig(method=m, **dims))[0] for m in METHODS} == expected


def test_params_prints_a_line_for_each_method(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA2))
    command = [sys.executable, "-m", "tools.params", "--model", tmp_path, "--roles", "95", "--layer-dim", "64", "--hidden-dim", "256"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "224 adapted linears" in done.stdout and "21,212,640" in done.stdout and len(done.stdout.splitlines()) == 1 + len(METHODS)
    bad = subprocess.run([*command[:4], "nowhere", "--roles", "5"], cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode != 0 and "no such folder" in bad.stderr and len(bad.stderr.splitlines()) == 1
