"""Watching a run while it trains: are its steps enough, and does it still learn or only memorise?"""
from console import counted

import math
from dataclasses import replace

import torch

from batches import collate
from files import check_numbers, read_jsonl, reading, write_jsonl
from likelihood import reference_nll
from memory import GIB, describe, training_memory
from selection import spread

FEW_STEPS = 60                          # with fewer, no setting tried for configs/few-lines.json found a voice
LINES = 32                              # of the test, at most


class HeldOut:
    """Nats per token of some test lines, every few steps of a run; held_out.jsonl keeps them: {"step", "nats"}."""
    def __init__(self, model, tokenizer, config, samples, every, run):
        """config: as of a run's config.json; samples: test lines; every: steps between looks."""
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.samples = [replace(s, answers=s.answers[:1]) for s in spread(samples, LINES)]     # one reference: quick
        self.every = every
        self.path = run / "held_out.jsonl"
        self.looks = read_looks(self.path) if self.path.is_file() else []
        self.seen = 0                                                    # steps // every, at the last look

    def look(self, step):
        """What the progress bar shows after a step: the latest nats, and the step at which they were lowest."""
        if step // self.every > self.seen:
            self.seen = step // self.every
            self.model.eval()
            nll, _ = reference_nll(self.model, self.tokenizer, self.config, self.samples)
            self.model.train()
            nats = torch.nanmean(nll).item()
            self.looks = [look for look in self.looks if look["step"] < step]          # those before a resumed step
            if not math.isnan(nats):                                     # of no line that the context has room for
                self.looks.append({"step": step, "nats": round(nats, 4)})
            write_jsonl(self.path, self.looks)
        if not self.looks:
            return {}
        return {"held out": f"{self.looks[-1]['nats']:.3f}", "best at": self.best()["step"]}

    def best(self):
        """The look with the fewest nats, the earliest of equals."""
        return min(self.looks, key=lambda look: look["nats"])

    def summary(self):
        """A line for the end of the training; None if there was no look."""
        if not self.looks:
            return None
        best, last = self.best(), self.looks[-1]
        line = f"held-out lines: {last['nats']:.3f} nats per token at step {last['step']}"
        if best["nats"] < 0.98 * last["nats"]:
            line += (f", but {best['nats']:.3f} at step {best['step']}: from there on it also learnt its lines by "
                     f"heart, though voices may still get clearer (--max-steps {best['step']} would stop there)")
        return line


def read_looks(path):
    """The looks of a held_out.jsonl; FileError if it is not one."""
    looks = []
    for place, look in read_jsonl(path):
        with reading(place, '{"step", "nats"}'):
            check_numbers(look, {"step": (int, 0, 1e15), "nats": (float, 0, 1e9)})
            if look["step"] is not None and look["nats"] is not None:
                looks.append(look)
    return looks


def too_few_steps(total):
    """A line of warning where a run plans too few steps to learn a character; None where it plans enough."""
    if total >= FEW_STEPS:
        return None
    return (f"{counted(total, 'step')} in all are few: characters take about {FEW_STEPS} or more; raise --epochs "
            f"(--max-steps, if it is set), or lower --batch-size (configs/few-lines.json is for 30 to 300 lines)")


def contrast_never_starts(steps, cfg):
    """A line of warning where lambda of Eq. 8 stays 0 in every step, though lambda_max is not 0; else None."""
    last_epoch = (steps.total - 1) / steps.per_epoch
    if cfg.lambda_min or not cfg.lambda_max or last_epoch > cfg.lambda_start_epoch:
        return None
    return (f"the last step is at epoch {last_epoch:.2g}, the contrastive loss begins after epoch "
            f"{cfg.lambda_start_epoch:g}: this run trains without it; lower --lambda-start-epoch")


def expected_memory(model, steps, cfg, backward):
    """What the step with the longest examples will take on the GPU, and what is free there for this process.

    backward: `train.backward`.
    """
    longest = sorted(steps.examples, key=lambda example: len(example.ids))[-cfg.batch_size:]
    batch = collate(longest, steps.pad_id, cfg.pool)
    lam = 0.0 if model.projections is None else 1.0

    def step(fake_model):
        backward(fake_model, [batch], cfg, lam, torch.amp.GradScaler("cpu", enabled=False))
    backbone = model.backbone
    expected = training_memory(backbone.config, model.config, backbone.dtype, step, cfg.checkpoint_activations)

    free, _ = torch.cuda.mem_get_info(backbone.device)
    free += torch.cuda.memory_reserved(backbone.device)
    line = f"GPU memory of a step: {describe(expected)}; there are {free / GIB:.1f} GiB for it"
    if expected.total() + GIB > free:
        line += "\nthat is tight: a lower --batch-size or --max-length takes less, and so does --checkpoint-activations"
    return line
