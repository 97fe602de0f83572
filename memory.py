"""Will it fit? The memory that a training step and generation take on a GPU, from a config.json alone.

The real code runs on fake tensors, which have a shape and a dtype but no memory, and every storage is counted from
creation to release. That needs no GPU and no weights. Not counted: the CUDA context and libraries (0.5 to 1 GiB),
workspaces of kernels, and what the allocator loses to fragmentation.
"""
import contextlib
import weakref
from collections import Counter
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from generate import lm_logits
from hycora_layer import HyperModel
from model import Transformer

BLOCK = 512                             # bytes; CUDA's allocator hands out multiples of it
GIB = 2 ** 30


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of living fake tensors, by the category that was current when they were made.

    Real tensors work as usual and are not counted. Tensors of `vocab_size` columns are "logits".
    """
    def __init__(self, vocab_size):
        super().__init__()
        self.vocab_size = vocab_size
        self.category = "weights"
        self.living = {}                # storage -> (bytes, category)
        self.now = Counter()
        self.peak = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if tensors and not any(isinstance(t, FakeTensor) for t in tensors):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if func is torch.ops.aten._local_scalar_dense.default:           # .item(): no bool is true, any number is 1
            return tensors[0].dtype != torch.bool

        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, FakeTensor):
                self.count(tensor)
        return out

    def count(self, tensor):
        """Adds the tensor's storage, unless it is known already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.living:
            return
        category = self.category
        if category == "activations and gradients" and tensor.shape[-1:] == (self.vocab_size,):
            category = "logits"
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self.living[key] = size, category
        self.now[category] += size
        if self.now.total() > self.peak.total():
            self.peak = self.now.copy()
        weakref.finalize(storage, self.forget, key)

    def forget(self, key):
        """Subtracts a storage that was released."""
        size, category = self.living.pop(key)
        self.now[category] -= size

    def start(self, category):
        """From here on new tensors belong to this category, and the peak starts anew."""
        self.category = category
        self.peak = self.now.copy()


# -------------------------------------------------------------------------------------------- what a GPU's kernels keep
class Kernel(torch.autograd.Function):
    """An operation reduced to its memory: what it returns, and what it keeps for the backward pass."""
    @staticmethod
    def forward(ctx, run, *inputs):
        out, kept = run(*inputs)
        ctx.save_for_backward(*kept)
        ctx.inputs = [(t.shape, t.dtype) for t in inputs]
        return out

    @staticmethod
    def backward(ctx, grad):
        return None, *[grad.new_empty(shape, dtype=dtype) for shape, dtype in ctx.inputs]


def rms_norm(x, normalized_shape, weight=None, eps=None):
    """CUDA's fused kernel keeps its input and 1 / rms."""
    def run(x):
        return torch.empty_like(x), (x, x.new_empty(x.shape[:-1], dtype=torch.float32))
    return Kernel.apply(run, x)


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **options):
    """CUDA's flash kernel keeps q, k, v, its output, and a number per row of the softmax."""
    def run(q, k, v):
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        return out, (q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
    return Kernel.apply(run, q, k, v)


def dropout(x, p=0.5, training=True, inplace=False):
    """CUDA's kernel keeps a mask of one byte per number."""
    return torch.native_dropout(x, p, training)[0] if training and p else x


@contextlib.contextmanager
def fake_gpu(vocab_size):
    """Within it new tensors are fake, and operations keep what they would keep on a GPU. Yields the MemoryMeter."""
    meter = MemoryMeter(vocab_size)
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(F, "rms_norm", rms_norm))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", attention))
        stack.enter_context(patch("hycora_layer.dropout", dropout))
        stack.enter_context(patch("model.slow_in_bf16", lambda q: False))                # CPUs are
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(meter)
        yield meter


# ----------------------------------------------------------------------------------------------------------- estimates
def describe(memory):
    """{category: bytes} as text, in GiB."""
    parts = ", ".join(f"{category} {size / GIB:.1f}" for category, size in memory.items())
    return f"{memory.total() / GIB:.1f} GiB ({parts})"


def build_fake(model_config, adapter_config, dtype, meter):
    """A Hyper Model of fake tensors, counted as "weights" and "trainable, AdamW"."""
    with torch.device("meta"):
        backbone = Transformer(model_config)
    state = {name: torch.empty(p.shape, dtype=dtype) for name, p in backbone.named_parameters()}
    backbone.load_state_dict(state, strict=False, assign=True)
    backbone.tie_weights()

    meter.start("trainable, AdamW")
    return HyperModel(backbone, adapter_config)


def training_memory(model_config, adapter_config, dtype, step, checkpoint_activations=False):
    """Peak bytes of a training step by category, {category: bytes}.

    step(model): accumulates the gradients of one step, as `train.backward` does.
    """
    with fake_gpu(model_config.vocab_size) as meter:
        model = build_fake(model_config, adapter_config, dtype, meter).train()
        model.backbone.checkpoint_activations = checkpoint_activations
        moments = [torch.zeros_like(p) for p in model.trainable().values() for _ in range(2)]

        meter.start("activations and gradients")
        step(model)
        del moments
        return meter.peak


def generation_memory(model_config, adapter_config, dtype, rows, prompt, new_tokens):
    """Peak bytes of answering `rows` prompts of `prompt` tokens each with `new_tokens`, {category: bytes}."""
    role_ids = torch.arange(rows) % adapter_config.num_roles
    with fake_gpu(model_config.vocab_size) as meter, torch.no_grad():
        model = build_fake(model_config, adapter_config, dtype, meter).eval()
        backbone = model.backbone

        meter.start("cache")
        cache = backbone.new_cache(rows, prompt + new_tokens)
        meter.start("activations and gradients")
        with model.active_roles(role_ids):
            h = backbone.hidden_states(torch.zeros(rows, prompt, dtype=torch.long), cache)
            lm_logits(backbone, h[:, -1])
            next_token = torch.zeros(rows, 1, dtype=torch.long)
            backbone.hidden_states(next_token, cache, torch.full((rows,), prompt))
        return meter.peak
