"""The shape of a backbone, from its `config.json`, and an error for anything in it that is not implemented."""
from dataclasses import dataclass, fields

# the numbers of a backbone's config.json: type, least, most. Beyond these no machine can hold the model.
MODEL_NUMBERS = {
    **dict.fromkeys(("vocab_size", "padded_vocab_size", "intermediate_size", "ffn_hidden_size"), (int, 1, 10 ** 7)),
    **dict.fromkeys(("hidden_size", "head_dim", "kv_channels"), (int, 1, 10 ** 6)),
    **dict.fromkeys(("num_hidden_layers", "num_layers"), (int, 1, 1000)),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "multi_query_group_num"), (int, 1, 10 ** 4)),
    **dict.fromkeys(("max_position_embeddings", "seq_length", "sliding_window"), (int, 1, 10 ** 9)),
    **dict.fromkeys(("rms_norm_eps", "layernorm_epsilon"), (float, 0, 1)),
    **dict.fromkeys(("rope_theta", "rope_ratio"), (float, 1e-3, 1e12)),
}


@dataclass(frozen=True)
class ModelConfig:
    """The part of a `config.json` that shapes the computation, under its own names."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_positions: int               # at most the sliding window: within it, a window changes nothing
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: dict | None = None  # llama3's numbers
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    rotary_dim: int = 0              # dimensions of a head that rotate; 0: all
    chatglm: bool = False            # fused linears, interleaved rotary pairs

    @classmethod
    def from_hf(cls, config):
        """Reads the dict of a `config.json`; ValueError names any key whose value is not implemented."""
        c = dict(config)
        family = c.get("model_type")
        if family == "chatglm":
            return cls.from_chatglm(c)
        rope = c.get("rope_parameters") or c.get("rope_scaling") or {}   # transformers 5 and 4 write one each
        rope_type = rope.get("rope_type", rope.get("type", "default"))

        require("model_type", family, ["llama", "qwen2", "mistral", "chatglm"])
        require("hidden_act", c.get("hidden_act", "silu"), ["silu"])
        require("rope_scaling", rope_type, ["default", "llama3"])
        require("use_sliding_window", c.get("use_sliding_window", False), [False])
        require("quantization_config", c.get("quantization_config"), [None])

        c["num_key_value_heads"] = c.get("num_key_value_heads") or c["num_attention_heads"]
        c["head_dim"] = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        require("num_attention_heads % num_key_value_heads", c["num_attention_heads"] % c["num_key_value_heads"], [0])
        require("head_dim % 2", c["head_dim"] % 2, [0])                  # its dimensions rotate in pairs
        c["rope_theta"] = rope.get("rope_theta") or c.get("rope_theta", 10_000.0)
        c["rope_scaling"] = rope if rope_type == "llama3" else None

        c["max_positions"] = c.get("max_position_embeddings") or 4096
        if family == "mistral" and c.get("sliding_window"):
            c["max_positions"] = min(c["max_positions"], c["sliding_window"])

        attention_bias = c.get("attention_bias", False)                  # Qwen2 has biases on q, k, v by definition
        c["qkv_bias"] = family == "qwen2" or attention_bias
        c["o_bias"] = family != "qwen2" and attention_bias
        return cls(**{f.name: c[f.name] for f in fields(cls) if f.name in c})

    @classmethod
    def from_chatglm(cls, c):
        """The same for ChatGLM2, whose config.json uses other names."""
        implemented = {"rmsnorm": [True], "post_layer_norm": [True], "add_bias_linear": [False], "pre_seq_len": [None],
                       "apply_residual_connection_post_layernorm": [False], "quantization_bit": [0, None]}
        for key, values in implemented.items():
            require(key, c.get(key, values[0]), values)

        heads = c["num_attention_heads"]
        kv_heads = c["multi_query_group_num"] if c.get("multi_query_attention") else heads
        return cls(vocab_size=c["padded_vocab_size"], hidden_size=c["hidden_size"], num_hidden_layers=c["num_layers"],
                   intermediate_size=c["ffn_hidden_size"], num_attention_heads=heads, num_key_value_heads=kv_heads,
                   head_dim=c["kv_channels"], rotary_dim=c["kv_channels"] // 2, max_positions=c["seq_length"] or 4096,
                   rms_norm_eps=c["layernorm_epsilon"], rope_theta=10_000.0 * c.get("rope_ratio", 1),
                   qkv_bias=c.get("add_qkv_bias", False), chatglm=True)


def check_ids(sequences, config):
    """ValueError if a token id in one of the sequences is outside of the model's vocabulary."""
    highest = max(map(max, sequences))
    if highest >= config.vocab_size:
        raise ValueError(f"the tokenizer has a token {highest}, but the model only {config.vocab_size}: their files do "
                         f"not belong together")


def require(key, value, implemented):
    """ValueError, naming the key of config.json, unless its value is one of the implemented ones."""
    if value not in implemented:
        raise ValueError(f"{key} is {value!r}; implemented: {', '.join(map(str, implemented))}")
