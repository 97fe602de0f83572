"""Greedy generation of the same work: tokens/s, and how near the limit that memory sets.

    python -m benchmarks.decode [--shape toy|smollm2|llama2-7b] [--batches 1 8 64] [--rounds 5] [--compile] [--out JSON]

    bare, merged      this project: the untouched backbone; one role merged into it (W_0 + alpha / r B A)
    one, mixed        this project: one role for all rows; five roles mixed
    peft one, mixed   transformers + peft: one adapter; five, chosen by adapter_names
    official mixed    transformers with the authors' layer: the hyper-network inside every linear, for every token

Prompts of 32 tokens, 64 new ones, random weights, nothing stops early. Each system in turn, medians over the rounds.
Limit: the bytes that a step has to read (weights, and the cache at its mean length) at the measured rate of a copy.
"""
from console import Parser, one_line_errors, render_table

import statistics
from contextlib import nullcontext

import torch

from benchmarks.peers import ROLES, Theirs
from benchmarks.train_step import SHAPES, check_packages, machine, read_parameters, seconds_of
from files import claimed, write_json
from generate import Decoding, generate
from hycora_layer import AdapterConfig, HyperModel
from model import Transformer
from model_config import ModelConfig
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
            ids = torch.tensor(prompts, device=device)
            more = {}
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
    """Bytes per second that a copy moves, read and written together."""
    source = torch.empty(2 ** 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [seconds_of(lambda: target.copy_(source), device) for _ in range(8)]
    return 2 * source.numel() / statistics.median(seconds[2:])


def bytes_of_a_step(config, dtype, batch):
    """What a step has to read: the weights, and each row's cache at its mean length."""
    width = torch.finfo(dtype).bits // 8
    head = config.hidden_size // config.num_attention_heads
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * head * (PROMPT + NEW / 2)
    return width * (read_parameters(config) + batch * cached)


def measure(systems, batch, args, config, device):
    """{name: tokens per second} with a batch, each system in turn."""
    prompts = torch.randint(config.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    seconds = {name: [] for name in systems}
    for n in range(-1, args.rounds):                                     # one to warm up
        for name, system in systems.items():
            took = seconds_of(lambda system=system: system(prompts), device)
            if n >= 0:
                seconds[name].append(took)
    return {name: batch * NEW / statistics.median(of) for name, of in seconds.items()}


@one_line_errors("benchmarks.decode")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="toy")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile ours (on a GPU with CUDA graphs)")
    parser.add_argument("--out", help="JSON")
    args = parser.parse_args()
    if min(args.rounds, *args.batches) < 1:
        raise ValueError("--rounds and --batches have to be positive")
    check_packages(["peft", "official"])

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = ModelConfig.from_hf(SHAPES[args.shape] | {"model_type": "llama", "max_position_embeddings": 4096})
    with claimed(args.out) if args.out else nullcontext():
        systems = ours(config, dtype, device, args.compile) | theirs(config, dtype, device)
        rate = copy_rate(device)
        print(f"shape {args.shape}, ours {'compiled' if args.compile else 'eager'}, {str(dtype)[6:]}, "
              f"torch {torch.__version__}, {machine(device)}, copy {rate / 1e9:.1f} GB/s\n")

        rows = [["batch", "system", "tokens/s", "x peft one", "of the limit"]]
        results = {}
        for batch in args.batches:
            speed = measure(systems, batch, args, config, device)
            limit = batch * rate / bytes_of_a_step(config, dtype, batch)
            results[batch] = {"tokens_per_s": speed, "limit": limit}
            for name, s in speed.items():
                rows.append([str(batch), name, f"{s:.0f}", f"{s / speed['peft one']:.2f}", f"{s / limit:.2f}"])
        if args.out:
            write_json(args.out, {"shape": args.shape, "results": results})
    print(render_table(rows, markdown=True))


if __name__ == "__main__":
    main()
