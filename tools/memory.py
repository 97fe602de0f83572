"""Will it fit? The GPU memory of a training step and of answering, for a backbone: from its config.json alone.

    python -m tools.memory --model FOLDER_OR_ID --roles 95 --batch-size 4 --length 512 [--checkpoint-activations]

Counted on fake tensors (memory.py), so no GPU and no weights are needed. A GPU also holds 0.5 to 1 GiB for CUDA
itself, and the allocator loses a little: with --have, one GiB is reserved for that.
"""
from console import Parser, one_line_errors, render_table

from functools import partial

import torch

import train
from batches import collate
from checkpoint import DTYPES
from config import Config
from data import Example
from hycora_layer import METHODS
from memory import GIB, generation_memory, training_memory
from tools.params import add_model, read_model

KEPT = 1 * GIB                          # for CUDA itself and the allocator


def full_rows(rows, length, roles, supervised=0.5):
    """A batch of full rows in mixed roles, of whose tokens a share is supervised."""
    prompt = round(length * (1 - supervised))
    return collate([Example([0] * length, prompt, row % roles) for row in range(rows)], 0)


def one_micro_batch(model, batch):
    """Its gradient, with the contrastive loss where the method has one; returns (ce, contrastive)."""
    lam = 0.0 if model.projections is None else 0.3
    scaler = torch.amp.GradScaler(model.backbone.device.type, enabled=False)
    return train.backward(model, [batch], Config(), lam, scaler)


def step_memory(args, model_config, adapter_config, rows):
    """Peak bytes of a training step with `rows` rows, by category."""
    batch = full_rows(rows, args.length, args.roles, args.supervised)
    return training_memory(model_config, adapter_config, DTYPES[args.precision],
                           lambda model: one_micro_batch(model, batch), args.checkpoint_activations)


def largest_batch(measure, have):
    """The most rows with which measure(rows) stays within `have` bytes; 0 if even one does not.

    Memory grows by about the same amount with each row: two measurements give a guess, which is lowered by its excess
    until it fits.
    """
    one = measure(1).total()
    per_row = measure(2).total() - one
    rows = 1 + int((have - one) // per_row)
    while rows > 0 and (too_much := measure(rows).total() - have) > 0:
        rows -= max(1, int(too_much // per_row))
    return max(0, rows)


@one_line_errors("tools.memory")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    add_model(parser)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a training step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a training row")
    parser.add_argument("--supervised", type=float, default=0.5, help="share of them that are the answer")
    parser.add_argument("--checkpoint-activations", action="store_true")
    parser.add_argument("--method", choices=METHODS, default="hycora")
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--new-tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--answers", type=int, default=16, help="answers generated at once; on a GPU eval.py chooses")
    parser.add_argument("--have", type=float, default=0.0, help="GiB of the GPU: finds the largest batch that fits")
    args = parser.parse_args()
    if not 0 < args.supervised <= 1 or not 0 <= args.have <= 10 ** 6:
        raise ValueError("--supervised is a share, above 0 and at most 1, and --have a number of GiB")
    print_report(args, *read_model(args, args.method))


def print_report(args, model_config, adapter_config):
    """Prints the tables, and with --have what fits."""
    dtype = DTYPES[args.precision]
    training = partial(step_memory, args, model_config, adapter_config)

    def answering(rows):
        prompt = max(1, round(args.length * (1 - args.supervised)))
        return generation_memory(model_config, adapter_config, dtype, rows, prompt, args.new_tokens)

    kept = ", activations recomputed" if args.checkpoint_activations else ""
    measured = {f"training, {args.batch_size} x {args.length} tokens{kept}": training(args.batch_size),
                f"answering, {args.answers} rows, {args.new_tokens} new tokens": answering(args.answers)}
    for title, memory in measured.items():
        rows = [[category, f"{size / GIB:.2f}"] for category, size in memory.items()]
        print(f"{title}, GiB\n{render_table([*rows, ['peak', f'{memory.total() / GIB:.2f}']])}\n")

    if args.have:
        have = args.have * GIB - KEPT
        print(f"within {args.have:g} GiB, {KEPT / GIB:.0f} of them kept for CUDA: training with up to "
              f"{largest_batch(training, have)} rows, answering up to {largest_batch(answering, have)} at once")


if __name__ == "__main__":
    main()
