"""A LLaMA-style decoder (LLaMA, Qwen2, Mistral, ChatGLM2), read straight from Hugging Face files.

It knows nothing about roles: `hycora_layer.py` adapts its linears from outside.

    h = embed(ids)
    h = h + attention(norm(h));   h = h + mlp(norm(h))        once per block
    logits = lm_head(norm(h))

B batch, T tokens, S cache slots, C width, nh query heads, nkv key-value heads, hs head size.
Parameters carry the checkpoint's own names (ChatGLM2's prefixes are translated), so loading is an assignment.
ChatGLM2 fuses q, k, v into one linear, and gate and up into another; it rotates the first half of each head only, in
interleaved pairs.
Rows are padded on the *right*, always: causal attention then needs no mask, and position t is slot t.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from files import checkpoint_tensors, fetch_model, read_json, reading
from model_config import MODEL_NUMBERS, ModelConfig

# cuDNN's attention, which torch prefers on an H100, plans anew for each shape of a batch, in up to a second, and
# batches here seldom share one. This holds for the whole process.
torch.backends.cuda.enable_cudnn_sdp(False)

CHATGLM_NAMES = {"transformer.embedding.word_embeddings": "model.embed_tokens", "transformer.output_layer": "lm_head",
                 "transformer.encoder.final_layernorm": "model.norm", "transformer.encoder.layers": "model.layers",
                 "self_attention": "self_attn"}


# ---------------------------------------------------------------------------------------------------------- the parts
def rope_frequencies(c):
    """Rotary frequencies (hs,) in radians per position, each one twice, as `rotate` or `rotate_pairs` pairs dimensions.

    With llama3's scaling the slow ones are stretched. ChatGLM2's are fewer than hs.
    """
    dims = c.rotary_dim or c.head_dim
    freq = c.rope_theta ** -(torch.arange(0, dims, 2, device="cpu").float() / dims)
    if c.rope_scaling is not None:
        s = c.rope_scaling
        wavelength = 2 * math.pi / freq
        turns = s["original_max_position_embeddings"] / wavelength       # turns within the original context
        keep = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        keep = keep.clamp(0, 1)                                          # 1: fast, unchanged; 0: slow, stretched
        freq = keep * freq + (1 - keep) * freq / s["factor"]
    return freq.repeat_interleave(2) if c.chatglm else freq.repeat(2)


def rotate(x, cos, sin):
    """Rotary embedding, half-split as in Hugging Face's files: dimension i is paired with i + hs/2, not with i + 1.

        x = [a | b]  ->  [a cos - b sin | b cos + a sin]          x: (..., hs)
    """
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def rotate_pairs(x, cos, sin):
    """ChatGLM2's: dimension 2i is paired with 2i + 1, and only as many dimensions rotate as there are angles for."""
    turning, rest = x.split((cos.size(-1), x.size(-1) - cos.size(-1)), dim=-1)
    a, b = turning[..., 0::2], turning[..., 1::2]
    turned = turning * cos + torch.stack((-b, a), dim=-1).flatten(-2) * sin
    return torch.cat((turned, rest), dim=-1)


@dataclass
class LayerCache:
    """Keys and values of one layer, (B, nkv, S, hs) each; slot t of a row holds its token t."""
    k: torch.Tensor
    v: torch.Tensor

    def update(self, k, v, slots=None):
        """Stores new keys and values (B, nkv, T, hs) and returns those that the new queries may attend to.

        slots None: the prompt fills slots 0 to T - 1 and attends to itself. Otherwise T is 1, the index `slots` is
        where each row's token goes, and it attends to the whole cache, as far as the mask allows.
        """
        if slots is None:
            self.k[:, :, :k.size(2)] = k
            self.v[:, :, :v.size(2)] = v
            return k, v
        self.k[slots] = k[:, :, 0]
        self.v[slots] = v[:, :, 0]
        return self.k, self.v


def attend(q, k, v, mask=None):
    """Softmax attention of q (B, nh, T, hs) over k, v (B, nkv, S, hs): causal, or of one new token, T = 1, with a mask.
    Returns (B, nh, T, hs).

    One new token's query heads become the queries of the key head they share: no kernel then has to copy k and v.
    """
    B, nh, _, hs = q.shape
    if mask is not None:
        q = q.reshape(B, k.size(1), -1, hs)                              # (B, nkv, nh / nkv, hs)
        return F.scaled_dot_product_attention(q, k, v, mask).reshape(B, nh, 1, hs)
    if slow_in_bf16(q):
        with torch.autocast("cpu", enabled=False):                       # (which would cast to bf16 again)
            return attend(q.float(), k.float(), v.float()).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=nh != k.size(1))


def slow_in_bf16(q):
    """Whether the attention of q had better be computed in fp32: a CPU's kernel takes twice as long in bf16."""
    return q.dtype == torch.bfloat16 and q.device.type == "cpu"


class Attention(nn.Module):
    """Grouped-query causal self-attention."""
    def __init__(self, c):
        super().__init__()
        self.hs = c.head_dim
        self.q_width = c.num_attention_heads * c.head_dim
        self.kv_width = c.num_key_value_heads * c.head_dim
        self.rotate = rotate_pairs if c.chatglm else rotate
        self.add_linears(c)

    def add_linears(self, c):
        """Adds the projections under the checkpoint's names."""
        self.q_proj = nn.Linear(c.hidden_size, self.q_width, bias=c.qkv_bias)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_width, bias=c.qkv_bias)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_width, bias=c.qkv_bias)
        self.o_proj = nn.Linear(self.q_width, c.hidden_size, bias=c.o_bias)

    def qkv(self, x):
        """q, k, v of x (B, T, C), heads side by side in the last dimension."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def out(self, y):
        """The output projection."""
        return self.o_proj(y)

    def forward(self, x, cos, sin, cache=None, slots=None, mask=None):
        """x: (B, T, C); cache: a LayerCache; slots, mask: see `Transformer.hidden_states`."""
        B, T, _ = x.shape
        q, k, v = (h.view(B, T, -1, self.hs) for h in self.qkv(x))       # (B, T, heads, hs)

        # q and k are rotated together, which takes half the kernels
        turned = self.rotate(torch.cat((q, k), dim=2), cos, sin)
        q, k = turned.transpose(1, 2).split((q.size(2), k.size(2)), dim=1)
        v = v.transpose(1, 2)                                            # (B, heads, T, hs), as q and k

        if cache is not None:
            k, v = cache.update(k, v, slots)

        y = attend(q, k, v, mask)                                        # (B, nh, T, hs)
        return self.out(y.transpose(1, 2).reshape(B, T, -1))


class FusedAttention(Attention):
    """ChatGLM2's: one linear for q, k and v."""
    def add_linears(self, c):
        self.query_key_value = nn.Linear(c.hidden_size, self.q_width + 2 * self.kv_width, bias=c.qkv_bias)
        self.dense = nn.Linear(self.q_width, c.hidden_size, bias=False)

    def qkv(self, x):
        return self.query_key_value(x).split((self.q_width, self.kv_width, self.kv_width), dim=-1)

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
    """Pre-norm: attention, then MLP, each added to the residual stream."""
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = FusedAttention(c) if c.chatglm else Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = FusedMLP(c) if c.chatglm else MLP(c)

    def forward(self, x, cos, sin, cache=None, slots=None, mask=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache, slots, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


# ---------------------------------------------------------------------------------------------------------- the model
class Transformer(nn.Module):
    """A decoder with its language-model head; `Transformer.from_pretrained(folder or hub id)` loads one."""
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False      # recompute each block in the backward pass: less memory, more FLOPs
        self.compiled = False
        self.static_caches = {}                  # of compiled blocks: {shape: [LayerCache, ...]}, the last one
        self.model = nn.Module()                 # the checkpoint's own prefix
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.model.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # computed on the CPU even under torch.device("meta"), since no checkpoint holds it
        self.register_buffer("frequencies", rope_frequencies(config), persistent=False)
        self.tie_weights()

    def tie_weights(self):
        """Makes the head and the embedding one matrix, where config.json says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def _apply(self, fn, recurse=True):
        """Module.to and similar: the rotary frequencies stay in fp32 (bf16 is off by 0.45 rad at position 1024)."""
        super()._apply(fn, recurse)
        self.static_caches = {}
        self.frequencies = rope_frequencies(self.config).to(self.device)
        return self

    @property
    def layers(self):
        """The blocks, whose linears `hycora_layer` adapts."""
        return self.model.layers

    @property
    def dtype(self):
        """The dtype of the weights."""
        return self.lm_head.weight.dtype

    @property
    def device(self):
        """The device of the weights."""
        return self.lm_head.weight.device

    def hidden_states(self, input_ids, cache=None, positions=None):
        """Final hidden states, after the last norm.

        input_ids: (B, T), right-padded. With a cache (`new_cache`) and no `positions`, the prompt is written into it.
        With `positions` (B,), input_ids is (B, 1): row b's next token, at positions[b]. A row's padding
        may have left values in later slots: each is overwritten before anything attends to it.
        Returns (B, T, C). Raises ValueError when T is beyond the model's context.
        """
        T = input_ids.size(1)
        if T > self.config.max_positions:
            raise ValueError(f"{T} tokens, but this model reads at most {self.config.max_positions}")

        # the position of each token, and what it may attend to: all before it, or the slots up to its own
        slots = None
        mask = None
        where = torch.arange(T, device=input_ids.device)                 # (T,)
        if positions is not None:
            where = positions[:, None]                                   # (B, 1)
            # as an index: k[slots] is (B, nkv, hs), of each row b all heads at slot positions[b]
            slots = (torch.arange(len(positions), device=input_ids.device), slice(None), positions)
            later = torch.arange(cache[0].k.size(2), device=input_ids.device) > where            # (B, S)
            mask = torch.zeros(later.shape, dtype=self.dtype, device=input_ids.device)
            mask = mask.masked_fill_(later, -math.inf)[:, None, None]    # (B, 1, 1, S)

        angles = where[..., None, None] * self.frequencies               # (T, 1, hs) or (B, 1, 1, hs)
        cos = angles.cos().to(self.dtype)
        sin = angles.sin().to(self.dtype)

        # a forward pass is one use of CUDA graphs; without the mark each block would free its predecessor's output
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()

        h = self.model.embed_tokens(input_ids)                           # (B, T, C)
        for i, block in enumerate(self.layers):
            if self.checkpoint_activations and torch.is_grad_enabled():
                h = checkpoint(block, h, cos, sin, use_reentrant=False)
            else:
                h = block(h, cos, sin, cache[i] if cache else None, slots, mask)
        return self.model.norm(h)

    def forward(self, input_ids, cache=None, positions=None):
        """Logits (B, T, vocab) of `hidden_states(...)`."""
        return self.lm_head(self.hidden_states(input_ids, cache, positions))

    def compile_blocks(self, **options):
        """Compiles the block: one graph serves all layers, and any batch size and length."""
        # torch's limit of 8 is too low: prompt or next token, shared or per-row A and B, one row or more, train or not
        torch._dynamo.config.cache_size_limit = max(32, torch._dynamo.config.cache_size_limit)
        self.compiled = True
        for block in self.layers:
            block.compile(dynamic=True, **options)

    def new_cache(self, batch_size, length):
        """A LayerCache for each layer. S is `length` rounded up to a multiple of 16, which kernels prefer.

        With compiled blocks a cache of the same shape as the last has its memory, so there is only one at a time.
        """
        c = self.config
        slots = math.ceil(length / 16) * 16
        shape = (c.num_hidden_layers, 2, batch_size, c.num_key_value_heads, slots, c.head_dim)
        if cache := self.static_caches.get(shape):
            for layer in cache:
                layer.k.zero_()
                layer.v.zero_()
            return cache

        self.static_caches = {}                                          # which frees the last one
        cache = [LayerCache(k, v) for k, v in torch.zeros(shape, dtype=self.dtype, device=self.device)]

        # a CUDA graph writes to memory that is marked as static, and is recorded again for other memory
        if self.compiled:
            for layer in cache:
                torch._dynamo.mark_static_address(layer.k)
                torch._dynamo.mark_static_address(layer.v)
            self.static_caches = {shape: cache}
        return cache

    @classmethod
    def from_pretrained(cls, name, dtype=torch.float32, device="cpu"):
        """Loads a Hugging Face folder or hub id, frozen.

        The model is built without memory and each tensor goes from the memory-mapped file straight to its place, so
        the peak is about one copy. Raises FileNotFoundError without files, ValueError on an unimplemented config or
        when the tensors are not exactly the model's.
        """
        folder = fetch_model(name)
        path = folder / "config.json"
        with torch.device("meta"), reading(path, "the configuration of a LLaMA-style model"):
            model = cls(ModelConfig.from_hf(read_json(path, numbers=MODEL_NUMBERS)))
        expected = {key: p.shape for key, p in model.state_dict().items()}
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()

        state = {}
        unexpected = []
        for key, tensor in checkpoint_tensors(folder):
            for theirs, ours in CHATGLM_NAMES.items():                   # prefixes that only ChatGLM2's files have
                key = key.replace(theirs, ours)
            if key in tied or key.endswith(".inv_freq"):                 # old files hold the rotary angles
                continue
            if tensor.shape == expected.get(key):
                state[key] = tensor.to(device=device, dtype=dtype)
            else:
                unexpected.append(f"{key} {tuple(tensor.shape)}")

        missing = sorted(expected.keys() - state.keys() - tied)
        if missing or unexpected:
            raise ValueError(f"{folder} does not fit its config.json: {len(missing)} tensors are missing "
                             f"{missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}")
        model.load_state_dict(state, strict=False, assign=True)          # the check above was strict
        model.tie_weights()
        return model.to(device).requires_grad_(False).eval()
