"""What a training step and a decoded token cost on a GPU, counted without one: kernels launched, FLOPs, memory.

    python -m benchmarks.counted [--batch 4] [--length 512] [--roles 95]

The real code runs on a fake GPU (fake_cuda.py), which counts operations that a GPU would launch as kernels. One block
and two blocks are counted, and what the second adds stands for every other. A training step is one micro-batch,
mixed roles, half of the tokens supervised, without clipping and AdamW; attention's own FLOPs are left out. "bare": the
backbone alone, its gradient taken down to the embeddings.
"""
from console import Parser, one_line_errors, render_table

from dataclasses import replace

import torch

from benchmarks.fake_cuda import fake_cuda, install, why_not
from generate import Decoding, generate
from hycora_layer import METHODS, AdapterConfig, HyperModel
from losses import response_cross_entropy
from memory import GIB, training_memory
from model import Transformer
from model_config import ModelConfig
from tools.memory import full_rows, one_micro_batch
from tools.params import LLAMA2_7B

SHAPES = {
    "LLaMA-2-7B": LLAMA2_7B,
    "Qwen2-7B": dict(model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944,
                     num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4),
    "ChatGLM2-6B": dict(model_type="chatglm", padded_vocab_size=65024, hidden_size=4096, ffn_hidden_size=13696,
                        num_layers=28, num_attention_heads=32, multi_query_attention=True, multi_query_group_num=2,
                        kv_channels=128, seq_length=32768, layernorm_epsilon=1e-5, add_qkv_bias=True),
}


def bare_step(backbone, batch):
    """The same of the backbone alone."""
    batch = batch.to(backbone.device)
    hidden = backbone.hidden_states(batch.input_ids).flatten(0, 1)
    response_cross_entropy(hidden[batch.positions], backbone.lm_head.weight, batch.targets).backward()


def count(gpu, run):
    """(kernels, FLOPs) of run()."""
    gpu.forget()
    run()
    return sum(gpu.kernels.values()), gpu.flops


def count_blocks(config, method, args, blocks, checkpoint):
    """{"step" or "token": (kernels, FLOPs)} of a backbone of so many blocks; method None: the backbone alone."""
    batch = full_rows(args.batch, args.length, args.roles)
    with fake_cuda() as gpu:
        with torch.device("cuda"):
            backbone = Transformer(replace(config, num_hidden_layers=blocks)).bfloat16().requires_grad_(False)
        backbone.checkpoint_activations = checkpoint
        model = HyperModel(backbone, AdapterConfig(method=method or "hycora", num_roles=args.roles)).train()
        if method is None:
            backbone.model.embed_tokens.register_forward_hook(lambda module, inputs, out: out.requires_grad_())
            training = count(gpu, lambda: bare_step(backbone, batch))
        else:
            training = count(gpu, lambda: one_micro_batch(model, batch))

        roles = None if method is None else [0, 1]
        model.eval()
        two, three = (count(gpu, lambda n=n: generate(model, [[5, 6], [7]], roles, {3}, Decoding(n))) for n in (2, 3))
    return {"step": training, "token": (three[0] - two[0], three[1] - two[1])}


def count_model(config, method, args, checkpoint=False):
    """The same of the whole backbone, from its first two blocks."""
    one = count_blocks(config, method, args, 1, checkpoint)
    two = count_blocks(config, method, args, 2, checkpoint)
    more = config.num_hidden_layers - 1
    return {what: tuple(a + more * (b - a) for a, b in zip(one[what], two[what])) for what in one}


def memory_of(config, args, checkpoint):
    """GiB of a training step of HyCoRA."""
    batch = full_rows(args.batch, args.length, args.roles)
    adapter = AdapterConfig(num_roles=args.roles)
    memory = training_memory(config, adapter, torch.bfloat16, lambda model: one_micro_batch(model, batch), checkpoint)
    return memory.total() / GIB


@one_line_errors("benchmarks.counted")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    for name, default in (("batch", 4), ("length", 512), ("roles", 95)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if min(args.batch, args.length - 1, args.roles) < 1:
        raise ValueError("--batch and --roles have to be positive, and --length at least 2")
    if reason := why_not():
        raise ValueError(reason)
    install()

    tokens = args.batch * args.length
    print(f"{args.batch} x {args.length} tokens, {args.roles} roles, bf16; counted, not measured\n")

    rows = [["LLaMA-2-7B", "step", "x bare", "token", "x bare"]]
    llama = ModelConfig.from_hf(SHAPES["LLaMA-2-7B"])
    bare = count_model(llama, None, args)
    for method in (None, *METHODS):
        counts = bare if method is None else count_model(llama, method, args)
        cells = []
        for what in ("step", "token"):
            cells += [f"{counts[what][0]:,}", f"{counts[what][0] / bare[what][0]:.2f}"]
        rows.append([method or "bare", *cells])
    print(f"Kernels launched\n\n{render_table(rows, markdown=True)}\n")

    rows = [["hycora", "FLOPs of a step", "4 N T are of it", "GiB", "recomputed: FLOPs", "4 N T are of it", "GiB"]]
    for name, shape in SHAPES.items():
        config = ModelConfig.from_hf(shape)
        with torch.device("meta"):
            backbone = Transformer(config)
        blocks = sum(p.numel() for p in backbone.layers.parameters())
        least = 4 * (blocks * tokens + backbone.lm_head.weight.numel() * tokens // 2)
        cells = []
        for checkpoint in (False, True):
            flops = count_model(config, "hycora", args, checkpoint)["step"][1]
            cells += [f"{flops:.2e}", f"{least / flops:.1%}", f"{memory_of(config, args, checkpoint):.1f}"]
        rows.append([name, *cells])
    print(f"FLOPs and memory\n\n{render_table(rows, markdown=True)}")


if __name__ == "__main__":
    main()
