"""Does a GPU compute what the CPU computes? A training step and greedy answers of every method on both, in fp32.

    python -m benchmarks.parity [--device cuda]

The embedded backbone, random adapters, mixed roles, no dropout. Prints the largest difference relative to the largest
number of its kind, and a last line to report; exit code 1 where one is above 1e-3.
"""
from console import Parser, one_line_errors, render_table

import platform
import sys

import torch

import train
from batches import collate
from config import Config, pick_device
from data import Example
from generate import Decoding, generate
from hycora_layer import METHODS, AdapterConfig, HyperModel
from model import Transformer

TOLERANCE = 1e-3
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]


def build(method):
    """A Hyper Model whose adapters do something, on the CPU."""
    torch.manual_seed(0)
    backbone = Transformer.from_pretrained("tiny/backbone")
    model = HyperModel(backbone, AdapterConfig(method=method, num_roles=4, adapter_dropout=0.0))
    with torch.no_grad():
        for p in model.trainable().values():
            p.add_(0.02 * torch.randn_like(p))
    return model


def results(method, device):
    """{name: tensor on the CPU} of a step's losses and gradients and of logits, and greedy answers."""
    model = build(method).to(device)
    examples = [Example(list(range(10 * b + 3, 11 * b + 23)), 8, b % 4) for b in range(6)]
    lam = 0.3 if model.projections is not None else 0.0
    scaler = torch.amp.GradScaler(model.backbone.device.type, enabled=False)
    losses = train.backward(model, [collate(examples, 0)], Config(), lam, scaler)

    with torch.no_grad():
        logits = model(torch.tensor([example.ids[:20] for example in examples], device=device), torch.arange(6) % 4)
    gradients = {name: p.grad for name, p in model.trainable().items() if p.grad is not None}
    answers = generate(model, PROMPTS, [0, 2, 1], set(), Decoding(24))
    return {name: t.cpu() for name, t in ({"losses": losses, "logits": logits} | gradients).items()}, answers


def difference(one, other):
    """The largest difference, relative to the largest number."""
    return ((one - other).abs().max() / one.abs().max().clamp(min=1e-12)).item()


@one_line_errors("benchmarks.parity")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    device = pick_device(parser.parse_args().device)

    rows = [["method", "losses", "logits", "gradients", "greedy tokens equal"]]
    worst = 0.0
    for method in METHODS:
        on_cpu, said = results(method, "cpu")
        on_gpu, said_there = results(method, device)
        differences = {name: difference(on_cpu[name], on_gpu[name]) for name in on_cpu}
        losses, logits = differences.pop("losses"), differences.pop("logits")
        gradients = max(differences.values())
        worst = max(worst, losses, logits, gradients)
        pairs = [(a, b) for one, other in zip(said, said_there) for a, b in zip(one, other)]
        equal = sum(a == b for a, b in pairs)
        rows.append([method, f"{losses:.1e}", f"{logits:.1e}", f"{gradients:.1e}", f"{equal} of {len(pairs)}"])

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    verdict = "ok" if worst < TOLERANCE else "TOO FAR APART"
    print(f"{render_table(rows)}\n\nparity {verdict}: at most {worst:.1e} apart; {name}, torch {torch.__version__}")
    sys.exit(worst >= TOLERANCE)


if __name__ == "__main__":
    main()
