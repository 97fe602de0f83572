"""metrics.jsonl, a line per step of a training, and what happens when a step is not finite."""
import json
import math
import os
import time
from pathlib import Path

import torch
from tqdm import tqdm

from checkpoint import ADVICE, newest
from files import reading, write_text, writing
from losses import total_loss


class MetricsLog:
    """metrics.jsonl: a line per step. The GPU's values are fetched for many steps at once, so that no step waits."""
    def __init__(self, run, first_step, writes=True, max_skipped=3):
        """Keeps the lines of the steps before `first_step`; writes: only one process of a run does; max_skipped: this
        many skipped steps in a row end the training."""
        self.run = run
        self.writes = writes
        self.path = run / "metrics.jsonl" if writes else Path(os.devnull)
        self.max_skipped = max_skipped
        self.skipped_in_a_row = 0
        self.pending = []                                # lines that are not written yet
        self.start_clock()
        if writes:
            self.forget_steps_from(first_step)

    def forget_steps_from(self, first_step):
        """Keeps the lines of the steps before `first_step`: those after it are trained again."""
        kept = []
        with reading(self.path, "lines of metrics"):
            lines = self.path.read_text("utf8").splitlines() if self.path.exists() else []
            for line in lines:                           # the last may have been cut off
                if line.endswith("}") and json.loads(line)["step"] < first_step:
                    kept.append(line + "\n")
        write_text(self.path, "".join(kept))

    def start_clock(self):
        """Begins the interval of the next tokens_per_s."""
        self.since = time.monotonic()

    def add(self, line, rows, stats, grad_norm):
        """line: what the host knows about a step; rows: the examples it saw; stats: (2,) ce and contrastive loss."""
        self.pending.append((line, rows, torch.cat((stats, grad_norm[None]))))

    def flush(self):
        """Writes the pending lines, and says which steps were skipped; returns what the progress bar shows.

        Raises FloatingPointError after `max_skipped` of them in a row.
        """
        values = torch.stack([stats for _, _, stats in self.pending]).tolist()    # waits for the GPU, before the clock
        tokens = sum(line["tokens"] for line, _, _ in self.pending)
        tokens_per_s = tokens / max(time.monotonic() - self.since, 1e-9)

        with writing(self.path), open(self.path, "a", encoding="utf8") as file:
            for (line, rows, _), (ce, contrastive, grad_norm) in zip(self.pending, values):
                line["loss"] = finite_or_none(total_loss(ce, contrastive, line["lambda"]))
                line["ce"] = finite_or_none(ce)
                line["contrastive"] = finite_or_none(contrastive) if line["lambda"] else None
                line["grad_norm"] = finite_or_none(grad_norm)
                line["skipped"] = not math.isfinite(ce + contrastive + grad_norm)
                line["tokens_per_s"] = round(tokens_per_s, 1)
                file.write(json.dumps(line) + "\n")
                self.count_skipped(line, rows)

        self.pending = []
        shown = {name: f"{line[name]:.3f}" for name in ("ce", "contrastive") if line[name] is not None}
        return shown | {"tok/s": f"{tokens_per_s:.0f}"}

    def count_skipped(self, line, rows):
        """Reports a skipped step, and ends the training after too many in a row."""
        if not line["skipped"]:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        what = "gradient" if line["loss"] is not None else "loss"
        message = f"the {what} of step {line['step']} is not finite (rows {rows})"
        tqdm.write(f"{message}: this step is skipped")

        if self.skipped_in_a_row >= self.max_skipped:
            if what == "loss":
                self.unseal(line["step"] - self.skipped_in_a_row + 1)
            raise FloatingPointError(f"{message}, nor were the {self.max_skipped - 1} before it; last good checkpoint: "
                                     f"{newest(self.run)}. {ADVICE}")

    def unseal(self, step):
        """Removes the seal of every checkpoint from `step` on: with its weights the loss is not finite."""
        if self.writes:
            for seal in (self.run / "checkpoint").glob("*.json"):
                if seal.stem >= f"{step:08d}":
                    seal.unlink()


def finite_or_none(number):
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else None
