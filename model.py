"""A LLaMA-style decoder (LLaMA, Qwen2, Mistral, ChatGLM2), read straight from Hugging Face files.

It knows nothing of roles: `hycora_layer.py` adapts its linears from outside.

    h_0   = embed(ids)
    h     = h + attention(norm(h));   h = h + mlp(norm(h))        once per block
    logits = lm_head(norm(h))

B batch, T tokens, S cache slots, C width, nh query heads, nkv key-value heads, hs head size.
Parameters carry the checkpoint's own names (ChatGLM2's prefixes are translated), so loading is an assignment.
ChatGLM2 differs in this: q, k, v come from one linear and so do gate and up, and only the first half of each head
turns, in interleaved pairs.
Rows are padded on the *right*, always: causal attention then needs no mask, and position t is slot t.
"""
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

MODEL_FILES = ["config.json", "generation_config.json", "tokenizer*", "*.safetensors", "*.safetensors.index.json"]


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
    max_positions: int               # the sliding window where there is one: up to it, it changes nothing
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
        """Reads the dict of a `config.json`; ValueError names any key whose meaning is not implemented."""
        c = dict(config)
        family = c.get("model_type")
        if family == "chatglm":
            return cls.from_chatglm(c)
        rope = c.get("rope_parameters") or c.get("rope_scaling") or {}   # transformers 5 and 4 write one each
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        insist(model_type=(family, "llama", "qwen2", "mistral", "chatglm"),
               hidden_act=(c.get("hidden_act", "silu"), "silu"), rope_scaling=(rope_type, "default", "llama3"),
               use_sliding_window=(c.get("use_sliding_window", False), False),
               quantization_config=(c.get("quantization_config"), None))
        heads = c["num_attention_heads"]
        bias = c.get("attention_bias", False)
        window = c.get("sliding_window") if family == "mistral" else None
        positions = c.get("max_position_embeddings", 4096)
        c.update(num_key_value_heads=c.get("num_key_value_heads") or heads,
                 head_dim=c.get("head_dim") or c["hidden_size"] // heads,
                 max_positions=min(positions, window or positions),
                 rope_theta=rope.get("rope_theta") or c.get("rope_theta", 10_000.0),
                 rope_scaling=rope if rope_type == "llama3" else None,
                 qkv_bias=family == "qwen2" or bias, o_bias=family != "qwen2" and bias)
        return cls(**{f.name: c[f.name] for f in fields(cls) if f.name in c})

    @classmethod
    def from_chatglm(cls, c):
        """The same for ChatGLM2, whose config.json has words of its own."""
        insist(rmsnorm=(c.get("rmsnorm", True), True), post_layer_norm=(c.get("post_layer_norm", True), True),
               add_bias_linear=(c.get("add_bias_linear", False), False), pre_seq_len=(c.get("pre_seq_len"), None),
               quantization_bit=(c.get("quantization_bit", 0), 0, None), apply_residual_connection_post_layernorm=(
                   c.get("apply_residual_connection_post_layernorm", False), False))
        heads, hs = c["num_attention_heads"], c["kv_channels"]
        return cls(vocab_size=c["padded_vocab_size"], hidden_size=c["hidden_size"], num_hidden_layers=c["num_layers"],
                   intermediate_size=c["ffn_hidden_size"], num_attention_heads=heads, head_dim=hs,
                   num_key_value_heads=c["multi_query_group_num"] if c.get("multi_query_attention") else heads,
                   max_positions=c["seq_length"], rms_norm_eps=c["layernorm_epsilon"],
                   rope_theta=10_000.0 * c.get("rope_ratio", 1), qkv_bias=c.get("add_qkv_bias", False),
                   rotary_dim=hs // 2, chatglm=True)


def insist(**settings):
    """ValueError unless each setting's first item, the config's value, is one of the others, the implemented ones."""
    for key, (value, *implemented) in settings.items():
        if value not in implemented:
            raise ValueError(f"config.json: {key} is {value!r}; implemented: {', '.join(map(str, implemented))}")


CHATGLM_NAMES = {"transformer.embedding.word_embeddings": "model.embed_tokens", "transformer.output_layer": "lm_head",
                 "transformer.encoder.final_layernorm": "model.norm", "transformer.encoder.layers": "model.layers",
                 "self_attention": "self_attn"}


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the statistics in fp32."""
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        h = x.to(torch.promote_types(x.dtype, torch.float32))
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype)


def rope_frequencies(c):
    """Rotary frequencies (hs/2,), radians per position, with llama3's stretch of the slow ones if asked for."""
    dims = c.rotary_dim or c.head_dim
    freq = c.rope_theta ** -(torch.arange(0, dims, 2, device="cpu").float() / dims)
    if c.rope_scaling is None:
        return freq
    s = c.rope_scaling
    wavelength = 2 * math.pi / freq
    turns = s["original_max_position_embeddings"] / wavelength          # turns within the original context
    keep = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    keep = keep.clamp(0, 1)                                             # 1: fast, unchanged; 0: slow, stretched
    return keep * freq + (1 - keep) * freq / s["factor"]


def rotate(x, cos, sin):
    """Rotary embedding, half-split as in Hugging Face's files: dimension i turns with i + hs/2, not with i + 1.

        x = [a | b]  ->  [a cos - b sin | b cos + a sin]          x: (B, heads, T, hs)
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rotate_pairs(x, cos, sin):
    """ChatGLM2's: dimension 2i turns with 2i + 1, and only as many dimensions turn as there are angles for."""
    n = 2 * cos.size(-1)
    a, b = x[..., 0:n:2], x[..., 1:n:2]
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x[..., n:]), dim=-1)


class Attention(nn.Module):
    """Grouped-query causal self-attention."""
    rotate = staticmethod(rotate)

    def __init__(self, c):
        super().__init__()
        self.hs = c.head_dim
        self.widths = [n * c.head_dim for n in (c.num_attention_heads, *2 * [c.num_key_value_heads])]      # q, k, v
        self.grouped = c.num_attention_heads != c.num_key_value_heads
        self.add_linears(c)

    def add_linears(self, c):
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(c.hidden_size, n, bias=c.qkv_bias) for n in self.widths)
        self.o_proj = nn.Linear(self.widths[0], c.hidden_size, bias=c.o_bias)

    def qkv(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def out(self, y):
        return self.o_proj(y)

    def forward(self, x, cos, sin, K=None, V=None, positions=None, mask=None):
        """x: (B, T, C). K, V: this layer's cache, (B, nkv, S, hs); positions, mask: see `Transformer.hidden`."""
        B, T, _ = x.shape
        q, k, v = (h.view(B, T, -1, self.hs).transpose(1, 2) for h in self.qkv(x))         # (B, heads, T, hs)
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        if positions is not None:                                        # one token, each row in its own slot
            rows = torch.arange(B, device=x.device)
            K[rows, :, positions], V[rows, :, positions] = k[:, :, 0], v[:, :, 0]
            q, k, v = q.reshape(B, K.size(1), -1, self.hs), K, V         # heads of a group: queries of one key head
        elif K is not None:                                              # the prompt fills slots 0..T-1
            K[:, :, :T], V[:, :, :T] = k, v
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None,
                                           enable_gqa=self.grouped and positions is None)
        return self.out(y.reshape(B, -1, T, self.hs).transpose(1, 2).reshape(B, T, -1))


class FusedAttention(Attention):
    """ChatGLM2's: one linear for q, k and v."""
    rotate = staticmethod(rotate_pairs)

    def add_linears(self, c):
        self.query_key_value = nn.Linear(c.hidden_size, sum(self.widths), bias=c.qkv_bias)
        self.dense = nn.Linear(self.widths[0], c.hidden_size, bias=False)

    def qkv(self, x):
        return self.query_key_value(x).split(self.widths, dim=-1)

    def out(self, y):
        return self.dense(y)


class MLP(nn.Module):
    """SwiGLU."""
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=c.mlp_bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class FusedMLP(nn.Module):
    """ChatGLM2's: one linear for gate and up."""
    def __init__(self, c):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(c.hidden_size, 2 * c.intermediate_size, bias=False)
        self.dense_4h_to_h = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        return self.dense_4h_to_h(F.silu(gate) * up)


class Block(nn.Module):
    """Pre-norm: attention, then MLP, each added to the stream."""
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = FusedAttention(c) if c.chatglm else Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = FusedMLP(c) if c.chatglm else MLP(c)

    def forward(self, x, cos, sin, K=None, V=None, positions=None, mask=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, K, V, positions, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """A decoder with its language-model head; `Transformer.from_pretrained(folder or hub id)` loads one."""
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False      # recompute each block in the backward pass: 6N T FLOPs for 4N T
        self.compiled = False
        self.model = nn.Module()                 # the checkpoint's own prefix
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # made on the CPU even under torch.device("meta"): no checkpoint holds it
        self.register_buffer("frequencies", rope_frequencies(config), persistent=False)
        self.tie()

    def tie(self):
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def layers(self):
        """The blocks: what `hycora_layer` adapts lies in here."""
        return self.model.layers

    @property
    def dtype(self):
        return self.lm_head.weight.dtype

    @property
    def device(self):
        return self.lm_head.weight.device

    def hidden(self, input_ids, cache=None, positions=None):
        """Final hidden states, after the last norm.

        input_ids: (B, T), right-padded. With a cache (`new_cache`) and no `positions`, the prompt is written into it.
        With `positions` (B,), input_ids is (B, 1): row b's next token, which stands at positions[b]. A row's
        padding may have left rubbish in later slots: each is overwritten before it is attended to.
        Returns (B, T, C). Raises ValueError when T is beyond the model's context.
        """
        T = input_ids.size(1)
        if T > self.config.max_positions:
            raise ValueError(f"{T} tokens, but this model reads at most {self.config.max_positions}")
        where = torch.arange(T, device=input_ids.device) if positions is None else positions[:, None, None]
        angles = where[..., None].float() * self.frequencies             # (T, hs/2) or (B, 1, 1, hs/2)
        cos, sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        mask = None
        if positions is not None:                                        # a row sees its slots up to its own
            mask = (torch.arange(cache.size(-2), device=positions.device) <= positions[:, None])[:, None, None]
        h = self.model.embed_tokens(input_ids)                           # (B, T, C)
        for i, block in enumerate(self.layers):
            if self.checkpoint_activations and torch.is_grad_enabled():
                h = checkpoint(block, h, cos, sin, use_reentrant=False)
            else:
                h = block(h, cos, sin, *(cache[i] if cache is not None else (None, None)), positions, mask)
        return self.model.norm(h)

    def forward(self, input_ids, cache=None, positions=None):
        """Logits (B, T, vocab) of `hidden(...)`."""
        return self.lm_head(self.hidden(input_ids, cache, positions))

    def compile_blocks(self, **options):
        """Compiles the block: one graph serves all layers, and any batch and length."""
        self.compiled = True
        limits = torch._dynamo.config                      # prompt or next token, each kind of voice, one row or more
        limits.cache_size_limit = max(32, limits.cache_size_limit)
        for block in self.layers:
            block.compile(dynamic=True, **options)

    def new_cache(self, batch_size, length):
        """Keys and values of every layer, (layers, 2, B, nkv, S, hs); slot t of a row holds its token t. S is `length`
        rounded up to a multiple of 16, as attention kernels like it."""
        c = self.config
        shape = (c.num_hidden_layers, 2, batch_size, c.num_key_value_heads, -(-length // 16) * 16, c.head_dim)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @classmethod
    def from_pretrained(cls, name, dtype=torch.float32, device="cpu"):
        """Loads a Hugging Face folder or hub id, frozen.

        The model is built without memory and each tensor goes from the memory-mapped file straight to its
        place, so the peak is about one copy. Raises FileNotFoundError without files, ValueError on an
        unimplemented config or when the tensors are not exactly the model's.
        """
        folder = fetch(name)
        with torch.device("meta"):
            model = cls(ModelConfig.from_hf(json.loads((folder / "config.json").read_text("utf8"))))
        expected = {key: p.shape for key, p in model.state_dict().items()}
        ignored = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        state, strange = {}, []
        for key, tensor in checkpoint_tensors(folder):
            if model.config.chatglm:
                for theirs, ours in CHATGLM_NAMES.items():
                    key = key.replace(theirs, ours)
            if key in ignored or key.endswith(".inv_freq"):              # old files carry the angles
                continue
            if key in expected and tensor.shape == expected[key]:
                state[key] = tensor.to(device=device, dtype=dtype)
            else:
                strange.append(f"{key} {tuple(tensor.shape)}")
        missing = sorted(expected.keys() - state.keys() - ignored)
        if missing or strange:
            raise ValueError(f"{folder} does not fit its config.json: {len(missing)} tensors are missing "
                             f"{missing[:3]}, {len(strange)} unexpected {strange[:3]}")
        if ignored:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state, assign=True)
        model.tie()
        return model.to(device).requires_grad_(False).eval()


def fetch(name, files=None):
    """The folder of a backbone: itself if it is one, else downloaded from the hub (and cached there).

    files: patterns of those that are wanted; default: all that a model needs."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json: not a Hugging Face model folder")
        return folder
    if folder.is_absolute() or str(name).startswith("."):
        raise FileNotFoundError(f"{name}: no such folder")
    from huggingface_hub import constants, list_repo_files, snapshot_download
    from huggingface_hub.errors import GatedRepoError
    try:
        if files is None:                                                # .bin files only where there is nothing better
            there = [] if constants.HF_HUB_OFFLINE else list_repo_files(name)
            files = MODEL_FILES + ([] if any(f.endswith(".safetensors") for f in there) else ["pytorch_model*"])
        return Path(snapshot_download(name, allow_patterns=files))
    except GatedRepoError:
        raise FileNotFoundError(f"{name} is gated: accept its terms on the hub, then log in (hf auth login)") from None
    except Exception as e:                                               # an unknown name, no network, a broken cache
        raise FileNotFoundError(f"{name}: no such folder, and not to be had from the hub "
                                f"({str(e).strip().splitlines()[0]})") from None


def checkpoint_tensors(folder):
    """Yields (name, tensor) of a folder's weights, memory-mapped: sharded or single, safetensors or .bin."""
    for stem, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", _bin)):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text("utf8"))["weight_map"].values()))
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


def _safetensors(path):
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                yield key, file.get_tensor(key)
    except SafetensorError as e:
        raise ValueError(f"{path} is broken: {e}") from None


def _bin(path):
    yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True).items()
