"""Greedy generation of the same work: tokens/s, and how near the limit that memory sets.

    python -m benchmarks.decode [--shape toy|smollm2|llama2-7b] [--batches 1,8,64] [--rounds 5] [--compile] [--out JSON]

    bare, merged      this project: the untouched backbone; one role merged into it (W_0 + alpha / r B A)
    one, mixed        this project: one role for all rows; five roles mixed
    peft one, mixed   transformers + peft: one adapter; five, chosen by adapter_names
    official mixed    transformers with the authors' layer: the hyper-network inside every linear, for every token

Prompts of 32 tokens, 64 new ones, random weights, nothing stops early. Each system in turn, medians over the rounds.
Limit: the bytes that a step has to read (weights, and the cache at its mean length) at the measured rate of a copy.
"""
import argparse
import json
import platform
import statistics
import time

import torch

from benchmarks.train_step import ROLES, SHAPES, Theirs, sync
from generate import Decoding, generate
from hycora_layer import AdapterConfig, HyperModel
from model import ModelConfig, Transformer
from tools.export import merge

PROMPT, NEW = 32, 64


def ours(config, dtype, device, compiled):
    """{name: function of (prompts, role ids)} of this project; the adapters' B random, so that they do something."""
    def backbone():
        torch.manual_seed(0)
        with torch.device(device):
            return Transformer(config).to(dtype).requires_grad_(False).eval()
    plain, merged = (HyperModel(backbone(), AdapterConfig(num_roles=ROLES)).eval() for _ in range(2))
    with torch.no_grad():
        for name, p in plain.trainable().items():
            if name.endswith(".B"):
                p.normal_(std=0.01)
    merged.load_state_dict(plain.state_dict())
    merge(merged, 0)
    for model in (plain, merged) if compiled else ():
        model.backbone.compile_blocks(mode="reduce-overhead" if device == "cuda" else None)
    decoding = Decoding(NEW)

    def run(model, roles):
        return lambda prompts: generate(model, prompts, roles and roles(len(prompts)), {-1}, decoding)
    return {"bare": run(plain, None), "merged": run(merged, None), "one": run(plain, lambda n: [0] * n),
            "mixed": run(plain, lambda n: [i % ROLES for i in range(n)])}


def theirs(config, dtype, device):
    """The same of transformers."""
    one, official = (Theirs(name, config, dtype, device, False) for name in ("peft", "official"))
    for role in range(1, ROLES):
        one.model.add_adapter(f"r{role}", one.model.peft_config["default"])
    one.model.to(device).eval()
    official.model.eval()
    names = ["default"] + [f"r{role}" for role in range(1, ROLES)]
    options = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)

    def run(model, roles=None, by_name=False):
        @torch.inference_mode()
        def go(prompts):
            ids, more = torch.tensor(prompts, device=device), {}
            chosen = [i % ROLES for i in range(len(prompts))]
            if by_name:
                more["adapter_names"] = [names[i] for i in chosen]
            if roles is not None:
                roles[:] = [torch.tensor(chosen, device=device)]
            return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options, **more)
        return go
    return {"peft one": run(one.model), "peft mixed": run(one.model, by_name=True),
            "official mixed": run(official.model, official.role_ids)}


def copy_rate(device):
    """Bytes per second that a copy reads (and as many that it writes)."""
    source = torch.empty(2 ** 28, dtype=torch.uint8, device=device)
    target, seconds = torch.empty_like(source), []
    for _ in range(8):
        sync(device)
        start = time.perf_counter()
        target.copy_(source)
        sync(device)
        seconds.append(time.perf_counter() - start)
    return 2 * source.numel() / statistics.median(seconds[2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--shape", choices=SHAPES, default="toy")
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile ours (on a GPU with CUDA graphs)")
    parser.add_argument("--out", help="JSON")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = ModelConfig.from_hf(SHAPES[args.shape] | {"model_type": "llama", "max_position_embeddings": 4096})
    systems = ours(config, dtype, device, args.compile) | theirs(config, dtype, device)
    with torch.device("meta"):
        backbone = Transformer(config)
    width = torch.finfo(dtype).bits // 8
    weights = width * sum(p.numel() for p in (*backbone.layers.parameters(), backbone.lm_head.weight))
    kv_heads, head = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    cache = width * 2 * config.num_hidden_layers * kv_heads * head * (PROMPT + NEW / 2)
    rate, results = copy_rate(device), {}
    where = torch.cuda.get_device_name() if device == "cuda" else \
        f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(f"shape {args.shape}, ours {'compiled' if args.compile else 'eager'}, {str(dtype)[6:]}, "
          f"torch {torch.__version__}, {where}, copy {rate / 1e9:.1f} GB/s\n")
    print("| batch | system | tokens/s | x peft one | of the limit |\n" + "| --- " * 5 + "|")
    for batch in map(int, args.batches.split(",")):
        prompts = torch.randint(config.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
        seconds = {name: [] for name in systems}
        for n in range(-1, args.rounds):
            for name, system in systems.items():
                sync(device)
                start = time.perf_counter()
                system(prompts)
                sync(device)
                if n >= 0:
                    seconds[name].append(time.perf_counter() - start)
        speed = {name: batch * NEW / statistics.median(s) for name, s in seconds.items()}
        limit = batch * rate / (weights + batch * cache)
        for name, s in speed.items():
            print(f"| {batch} | {name} | {s:.0f} | {s / speed['peft one']:.2f} | {s / limit:.2f} |", flush=True)
        results[batch] = {"tokens_per_s": speed, "limit": limit}
    if args.out:
        with open(args.out, "w") as file:
            json.dump({"shape": args.shape, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
