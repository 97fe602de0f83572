"""A GPU that is not there: inside `with fake_cuda() as gpu:` the device "cuda" can be used, on a CPU, in seconds.

Its tensors have a shape, a dtype and a device but no memory, yet they go through torch's real dispatcher, autocast,
autograd engine (with a thread of its own for the GPU), fused AdamW and GradScaler. What that finds: a tensor on the
wrong device or of the wrong dtype, a step that waits for the GPU, a change that doubles the kernels. What it cannot
find: wrong numbers, speed, CUDA graphs, NCCL.

Tensors of the CPU stay real and are computed with as ever; they become fake where they meet the GPU.
"""
import contextlib
import ctypes
import sys
import threading
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ROOT = Path(__file__).resolve().parents[1]
NO_KERNEL = {
    "t", "view", "_unsafe_view", "transpose", "expand", "unsqueeze", "squeeze", "select", "slice", "split",
    "split_with_sizes", "unbind", "detach", "permute", "as_strided", "alias", "lift_fresh", "empty", "empty_like",
    "empty_strided", "new_empty", "new_empty_strided"}
WAITS = {"_local_scalar_dense", "item", "nonzero", "_unique2", "unique_dim", "masked_select"}    # the host needs them
MOVES = {"_to_copy", "to", "copy_", "lift_fresh", "detach"}             # may read a tensor of the CPU
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}


# -------------------------------------------------------------------------------------- a CPU build believes in CUDA
def install():
    """Gives a torch without a GPU what the autograd engine asks of CUDA: hooks that say it is there and, to a build
    for the CPU, a device guard and a few kernels. Symbols and the order of the hooks' virtual functions are those of
    torch 2.13 on Linux (`why_not`).
    """
    if torch.cuda.is_available() or hasattr(install, "keep"):
        return
    lib = Path(torch.__file__).parent / "lib"
    function = ctypes.CFUNCTYPE(ctypes.c_byte, ctypes.c_void_p)
    no = function(lambda self: 0)
    yes = function(lambda self: 1)
    no_address, yes_address = (ctypes.cast(f, ctypes.c_void_p).value for f in (no, yes))

    # a guard of a CUDA with 0 devices, which torch itself then replaces by one that does nothing
    # in c10::impl::device_guard_impl_registry, which is [CPU, CUDA, ...]
    registry = "_ZN3c104impl26device_guard_impl_registryE"
    guards = (ctypes.c_void_p * 2).in_dll(ctypes.CDLL(str(lib / "libc10.so")), registry)
    guard_table = (ctypes.c_void_p * 32)(*[no_address] * 32)
    guard = ctypes.c_void_p(ctypes.addressof(guard_table))
    if not guards[1]:
        guards[1] = ctypes.addressof(guard)
    torch._C._ensureCUDADeviceGuardSet()

    # at::detail::getCUDAHooks(): a copy of its table of functions, in which isBuilt and hasPrimaryContext say yes
    hooks = ctypes.CDLL(str(lib / "libtorch_cpu.so"))["_ZN2at6detail12getCUDAHooksEv"]
    hooks.restype = ctypes.POINTER(ctypes.c_void_p)
    hooks_table = (ctypes.c_void_p * 128)()
    ctypes.memmove(hooks_table, hooks()[0] - 16, 1024)                   # two words before the functions: their type
    hooks_table[4] = hooks_table[6] = yes_address
    hooks()[0] = ctypes.addressof(hooks_table) + 16

    # kernels that CUDA has, and for which a CPU takes several operations
    kernels = torch.library.Library("aten", "IMPL")
    if not torch.version.cuda:
        kernels.impl("silu_backward", lambda grad, x: torch.empty_like(x), "CUDA")
        kernels.impl("_fused_rms_norm", fused_rms_norm, "CUDA")
        kernels.impl("_fused_rms_norm_backward", fused_rms_norm_backward, "CUDA")
    install.keep = no, yes, guard_table, guard, hooks_table, kernels     # torch holds addresses only


def fused_rms_norm(x, normalized_shape, weight, eps):
    """The output and 1 / rms."""
    return torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def fused_rms_norm_backward(grad, x, normalized_shape, rstd, weight, output_mask):
    """The gradients of x and weight, as asked for."""
    return tuple(torch.empty_like(t) if wanted else None for t, wanted in zip((x, weight), output_mask))


def why_not():
    """Why there can be no fake GPU here; None if there can."""
    if not sys.platform.startswith("linux"):
        return "the fake GPU knows torch on Linux alone"
    if not torch.__version__.startswith("2.13."):
        return f"the fake GPU knows torch 2.13, this is {torch.__version__}"
    return None


# ------------------------------------------------------------------------------------------------------- what it sees
class FakeGPU(TorchDispatchMode):
    """Sees every operation. All counters are {what: times}.

    kernels: by name; waits: (line, operation) at which the host would wait for the GPU; strays: (line, operation) at
    which a tensor of the CPU met one of the GPU, other than by a copy; products: (pass, *dtypes) of the matrix
    products. flops: of the products, attention not among them.
    """
    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.lock = threading.RLock()                                    # autograd's thread and this one
        self.kernels, self.waits, self.strays, self.products = Counter(), Counter(), Counter(), Counter()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        real = [t for t in tensors if not isinstance(t, FakeTensor)]
        target = kwargs.get("device") or next((a for a in args if isinstance(a, torch.device)), None)
        target = target and torch.device(target).type

        # of the CPU alone
        if len(real) == len(tensors) and target != "cuda":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if name == "device":
            return func(*args, **kwargs)

        # without autograd operations come whole: those that CUDA has no kernel for are taken apart, as it would
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CUDA")
        if torch.is_inference_mode_enabled() and not has_kernel:
            if name == "dropout" and not args[2]:
                return args[0]
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts

        # what should not be
        if name not in MOVES and any(t.dim() for t in real):
            self.strays[where(), name] += 1
        if real:
            args, kwargs = tree_map_only(torch.Tensor, self.as_fake, (args, kwargs))
        indices = [t for t in tree_leaves(args[1:2]) if isinstance(t, torch.Tensor)]
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in indices)
        to_cpu = target == "cpu" and any(t.is_cuda for t in tensors)
        if name in WAITS or by_mask or to_cpu:
            self.waits[where(), name] += 1
        if name in ("_local_scalar_dense", "item"):
            return tensors[0].dtype != torch.bool                        # every number is 1, nothing is true

        out = func(*args, **kwargs)
        if to_cpu:
            with unset_fake_temporarily():
                return torch.ones(out.shape, dtype=out.dtype)
        with self.lock:
            self.kernels[name] += name not in NO_KERNEL
            if name.rstrip("_") in PRODUCTS:
                left, right = [t for t in args if isinstance(t, torch.Tensor)][-2:]
                self.flops += 2 * left.numel() * right.size(-1)
                direction = "forward" if threading.current_thread() is threading.main_thread() else "backward"
                self.products[direction, *sorted({str(t.dtype).removeprefix("torch.") for t in tensors})] += 1
        return out

    def as_fake(self, tensor):
        """A tensor of the CPU as a fake one."""
        return tensor if isinstance(tensor, FakeTensor) else self.fake.from_tensor(tensor)

    def forget(self):
        """Sets all counters to zero."""
        self.flops = 0
        for counter in (self.kernels, self.waits, self.strays, self.products):
            counter.clear()


def where():
    """file:line of the innermost caller in this project; "autograd" in its thread."""
    frame = sys._getframe(1)
    while frame:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path.name != Path(__file__).name:
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "autograd"


# --------------------------------------------------------------------------------------------- what torch must not ask
def convert(module, function, recurse=True):
    """Module._apply, for `.to(...)`; torch's own swaps the contents of tensors, which fakes do not allow."""
    done = {}                                                            # tied parameters stay tied
    for part in module.modules():
        for key, p in part._parameters.items():
            if p is not None:
                done.setdefault(id(p), torch.nn.Parameter(function(p.detach()), p.requires_grad))
                part._parameters[key] = done[id(p)]
        for key, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[key] = function(buffer)
    return module


REAL_ATTENTION = F.scaled_dot_product_attention


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The kernels that CUDA chooses in half precision: flash without a mask, memory-efficient with one."""
    if q.dtype not in (torch.float16, torch.bfloat16):
        return REAL_ATTENTION(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -torch.inf)
    bias = attn_mask.expand(*q.shape[:3], k.size(2))
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, False)[0]


@contextlib.contextmanager
def fake_cuda(gpu=None):
    """Within it device "cuda" can be used. Yields the FakeGPU that sees everything; every number it returns is 1."""
    install()
    gpu = gpu or FakeGPU()

    def tolist(tensor):
        gpu.waits[where(), "tolist"] += 1
        return torch.ones(tensor.shape, dtype=tensor.dtype).tolist()

    gib = 2 ** 30
    answers = {
        "mem_get_info": (24 * gib, 24 * gib), "memory_reserved": 0, "memory_allocated": 0, "max_memory_allocated": gib,
        "empty_cache": None, "get_rng_state": torch.zeros(16, dtype=torch.uint8), "set_rng_state": None,
        "get_device_name": "no GPU"}
    patches = [patch.object(torch.cuda, name, lambda *args, value=value: value) for name, value in answers.items()]
    patches += [
        patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        patch.object(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True),
        patch.object(torch.cuda, "current_device", lambda: 0),
        patch.object(F, "scaled_dot_product_attention", attention),
        patch.object(torch.nn.Module, "_apply", convert),
        patch.object(torch.Tensor, "pin_memory", torch.Tensor.clone),
        patch.object(torch.utils._foreach_utils, "_foreach_supported_types", [torch.Tensor, FakeTensor]),
        patch.object(FakeTensor, "tolist", tolist),
    ]
    with contextlib.ExitStack() as stack:
        for context in (*patches, gpu.fake, gpu):
            stack.enter_context(context)
        yield gpu
