"""One optimizer step of the same work in four systems: tokens/s, peak memory, and how near the hardware's limit.

    python -m benchmarks.train_step [--shape toy|smollm2|llama2-7b] [--rounds 12] [--out FILE.json]

    hycora, lora   this project
    peft           transformers + peft's LoRA
    official       transformers with the authors' layer stated plainly: the hyper-network inside every linear, by sample

dense: full rows, every token supervised; half: the second half of each row is; rolebench: English RoleBench's
lengths (percentiles below), response only, each system batching as it does by default: here rows of similar length,
there random ones padded to the longest. Only real tokens count. One step of each system in turn, medians.
Limit: 4 FLOPs per parameter and token (frozen backbone; 6 with --checkpoint) at the machine's measured matmul rate.
"""
from console import Parser, one_line_errors, render_table

import platform
import random
import statistics
import time
from contextlib import nullcontext
from importlib.util import find_spec

import numpy as np
import torch

from batches import batch_order, collate
from benchmarks.peers import ROLES, Theirs
from data import Example
from files import claimed, write_json
from hycora_layer import AdapterConfig, HyperModel
from model import Transformer
from model_config import ModelConfig
from tools.memory import one_micro_batch
from tools.params import LLAMA2_7B

SHAPES = {
    "toy": dict(vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
                num_key_value_heads=4),
    "smollm2": dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                    num_attention_heads=9, num_key_value_heads=3),
    "llama2-7b": LLAMA2_7B,
}
PERCENT = [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.9, 100]      # of rows have at most so many tokens
PROMPT = [13, 18, 20, 23, 25, 27, 29, 31, 33, 36, 50, 75, 106, 124, 206, 283]    # (SmolLM2's tokenizer and template)
ANSWER = [3, 9, 13, 20, 31, 47, 59, 69, 77, 86, 98, 109, 125, 137, 212, 323]


class Ours:
    """This project's step, as train.fit takes it."""
    buckets = True

    def __init__(self, method, config, dtype, device, checkpoint):
        with torch.device(device):
            backbone = Transformer(config).to(dtype).requires_grad_(False)
        backbone.checkpoint_activations = checkpoint
        self.model = HyperModel(backbone, AdapterConfig(method=method, num_roles=ROLES)).train()
        self.params = list(self.model.trainable().values())
        self.optimizer = torch.optim.AdamW(self.params, fused=True)

    def step(self, rows):
        """One optimizer step on training rows."""
        one_micro_batch(self.model, collate(rows, 0))
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


SYSTEMS = {"hycora": Ours, "lora": Ours, "peft": Theirs, "official": Theirs}


def rows_of(workload, n, length, vocab, rng):
    """n training rows of a workload."""
    made = []
    for _ in range(n):
        if workload == "rolebench":
            prompt, answer = (round(np.interp(rng.uniform(0, 100), PERCENT, tokens)) for tokens in (PROMPT, ANSWER))
        else:
            prompt = 1 if workload == "dense" else length // 2
            answer = length - prompt
        ids = [rng.randrange(vocab) for _ in range(prompt + answer)]
        made.append(Example(ids, prompt, rng.randrange(ROLES)))
    return made


# ---------------------------------------------------------------------------------------------------------- measuring
def sync(device):
    """Waits for the GPU, if it is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run, device):
    """How long run() takes."""
    sync(device)
    start = time.perf_counter()
    run()
    sync(device)
    return time.perf_counter() - start


def machine(device):
    """What the numbers were measured on, as text."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def matmul_rate(config, tokens, dtype, device):
    """FLOP/s of the block's largest matrix product."""
    x, w = (torch.randn(n, config.hidden_size, dtype=dtype, device=device) for n in (tokens, config.intermediate_size))
    seconds = [seconds_of(lambda: x @ w.t(), device) for _ in range(12)]
    return 2 * x.numel() * len(w) / statistics.median(seconds[2:])


def read_parameters(config):
    """Numbers of a backbone that a step reads: its blocks and its head."""
    with torch.device("meta"):
        backbone = Transformer(config)
    return sum(p.numel() for p in (*backbone.layers.parameters(), backbone.lm_head.weight))


def measure(systems, workload, args, config, device):
    """{name: {"tokens_per_s", "peak_gib"}} of a workload, one step of each system in turn."""
    rng = random.Random(0)
    rows = rows_of(workload, args.batch * args.rounds * 2, args.length, config.vocab_size, rng)
    shuffled = list(range(len(rows)))
    rng.shuffle(shuffled)
    orders = {True: batch_order(rows, args.batch, 0, 0),
              False: [shuffled[i:i + args.batch] for i in range(0, len(rows), args.batch)]}

    seconds, tokens, peak = ({name: [] for name in systems} for _ in range(3))
    for n in range(-2, args.rounds):                                     # two to warm up
        for name, system in systems.items():
            chosen = [rows[i] for i in orders[system.buckets][n]]
            before = 0
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() - sum(p.nbytes for p in system.model.parameters())
            took = seconds_of(lambda system=system, chosen=chosen: system.step(chosen), device)
            if n >= 0:
                seconds[name].append(took)
                tokens[name].append(sum(len(row.ids) for row in chosen))
                peak[name].append((torch.cuda.max_memory_allocated() - before) / 2 ** 30 if device == "cuda" else 0)

    found = {}
    for name in systems:
        if workload == "rolebench":                                      # batches of different sizes
            rate = sum(tokens[name]) / sum(seconds[name])
        else:
            rate = statistics.median(tokens[name]) / statistics.median(seconds[name])
        found[name] = {"tokens_per_s": rate, "peak_gib": max(peak[name]) or None}
    return found


def table(results, limit):
    """{workload: `measure`} as rows of text, headings first."""
    rows = [["workload", "system", "tokens/s", "x peft", "x official", "of the limit", "peak GiB"]]
    for workload, result in results.items():
        for name, found in result.items():
            rate = found["tokens_per_s"]
            ratios = [f"{rate / result[other]['tokens_per_s']:.2f}" if other in result else "-"
                      for other in ("peft", "official")]
            memory = f"{found['peak_gib']:.1f}" if found["peak_gib"] else "-"
            rows.append([workload, name, f"{rate:.0f}", *ratios, f"{rate / limit:.2f}", memory])
    return rows


def check_packages(systems):
    """ValueError if a system of SYSTEMS needs packages that are not installed."""
    if {"peft", "official"} & set(systems) and not (find_spec("peft") and find_spec("transformers")):
        raise ValueError("peft and official need more packages: pip install -r requirements-dev.txt")


@one_line_errors("benchmarks.train_step")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="toy")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--checkpoint", action="store_true", help="recompute activations")
    parser.add_argument("--out", help="JSON")
    args = parser.parse_args()
    if min(args.rounds, args.batch, args.length - 1) < 1:
        raise ValueError("--rounds and --batch have to be positive, and --length at least 2")
    check_packages(args.systems)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = ModelConfig.from_hf(SHAPES[args.shape] | {"model_type": "llama", "max_position_embeddings": 4096})
    with claimed(args.out) if args.out else nullcontext():
        systems = {name: SYSTEMS[name](name, config, dtype, device, args.checkpoint) for name in args.systems}
        flops = (6 if args.checkpoint else 4) * read_parameters(config)                    # per token
        limit = matmul_rate(config, args.batch * args.length, dtype, device) / flops
        conditions = {"shape": args.shape, "batch": args.batch, "length": args.length, "dtype": str(dtype)[6:],
                      "checkpoint": args.checkpoint, "rounds": args.rounds, "torch": torch.__version__,
                      "device": machine(device), "limit_tokens_per_s": round(limit)}
        results = {w: measure(systems, w, args, config, device) for w in ("dense", "half", "rolebench")}
        if args.out:
            write_json(args.out, {"conditions": conditions, "results": results})
    print(", ".join(f"{key} {value}" for key, value in conditions.items()))
    print(f"\n{render_table(table(results, limit), markdown=True)}")


if __name__ == "__main__":
    main()
