"""Figures that are drawn from numbers, for `tools.figures`: counts, a run's similarities, the methods of a study."""
import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from checkpoint import build, load_run
from data import load_test_samples, other_roles
from hycora_layer import METHODS
from likelihood import reference_nll
from tools.paper import trainable
from tools.svg import Svg

LINES = {"hycora": "generated", "lora": "shared", "ind-lora": "role"}


class Axes:
    """A plot's area on an Svg, and from its numbers to pixels; log: both axes count in powers of ten."""
    def __init__(self, svg, box, x_range, y_range, log=False):
        self.svg = svg
        self.left, self.top, self.width, self.height = box
        self.scale = math.log10 if log else float
        self.x_range = x_range
        self.y_range = y_range

    def share(self, value, low, high):
        """How far along its axis a value is, from 0 to 1."""
        return (self.scale(value) - self.scale(low)) / (self.scale(high) - self.scale(low))

    def at(self, x, y):
        """The pixel of a point."""
        return (self.left + self.width * self.share(x, *self.x_range),
                self.top + self.height * (1 - self.share(y, *self.y_range)))

    def draw(self, x_ticks, y_ticks, x_title, y_title):
        """Axes with ticks, {value: text}, and titles."""
        svg = self.svg
        bottom = self.top + self.height
        svg.path((self.left, self.top), (self.left, bottom), (self.left + self.width, bottom), arrow=False)
        for value, text in x_ticks.items():
            x, _ = self.at(value, self.y_range[0])
            svg.path((x, bottom), (x, bottom + 5), arrow=False)
            svg.text(x, bottom + 17, text, 13)
        for value, text in y_ticks.items():
            _, y = self.at(self.x_range[0], value)
            svg.path((self.left - 5, y), (self.left, y), arrow=False)
            svg.text(self.left - 10, y, text, 13, anchor="end")
        svg.text(self.left + self.width / 2, bottom + 42, x_title)
        svg.text(self.left - 60, self.top - 22, y_title, anchor="start")


def parameters():
    """Figure 3 of the paper: trainable numbers against roles, for LLaMA-2-7B."""
    svg = Svg(830, 360, "Trainable numbers of LLaMA-2-7B from 1 to 1,000 roles: a LoRA for each role grows from 20 "
                        "million to 20 billion, one shared LoRA stays at 20 million and HyCoRA at 21 million.")
    axes = Axes(svg, (100, 45, 560, 250), (1, 1000), (8e6, 3e10), log=True)
    axes.draw({1: "1", 10: "10", 100: "100", 1000: "1,000"},
              {1e7: "10 M", 1e8: "100 M", 1e9: "1,000 M", 1e10: "10,000 M"}, "roles", "trainable numbers")

    more = {}
    for method, kind in LINES.items():
        first = trainable(method, 1)
        more[method] = trainable(method, 2) - first
        svg.curve([axes.at(n, first + (n - 1) * more[method]) for n in range(1, 1001)], kind)

    x, y = axes.at(1000, 2e10)
    svg.text(x + 12, y, "one LoRA for each", anchor="start")
    x, y = axes.at(1000, 2.05e7)
    svg.text(x + 12, y - 12, "HyCoRA", anchor="start")
    svg.text(x + 12, y + 10, "one LoRA for all", anchor="start")
    svg.text(*axes.at(10, 1.6e9), f"{more['ind-lora']:,} more with each role", 13)
    svg.text(*axes.at(10, 4e7), f"{more['hycora']:,} more with each role", 13)
    return svg


# ----------------------------------------------------------------------------------------------- from a trained run
@torch.inference_mode()
def similarities(model, tokenizer, config, samples, voices):
    """(R, R) mean cosine of each role's z_r with z_t of each role's test answers, read by the model as `voices`."""
    _, e_t = reference_nll(model, tokenizer, config, [replace(s, role=v) for s, v in zip(samples, voices)])
    known = ~e_t.isnan().any(1)
    z_r, z_t = model.projections(model.hyper.role_embedding.weight, e_t[known])
    cosine = F.normalize(z_r, dim=-1) @ F.normalize(z_t, dim=-1).t()     # (R, answers)

    authors = torch.tensor([config["roles"][s.role] for s in samples])[known]
    return torch.stack([cosine[:, authors == role].mean(1) for role in range(len(z_r))], dim=1)


def similarity(run):
    """What Eq. 7 makes of role embeddings and test answers: before training, after, and in another role's voice."""
    model, tokenizer, config = load_run(run, "cpu")
    if model.projections is None:
        raise ValueError(f"{run}: {config['method']} has no role embeddings to compare; use a run of hycora")
    samples = load_test_samples(config["data"], config["language"], roles=config["roles"])
    own = [s.role for s in samples]
    others = [other or s.role for s, other in zip(samples, other_roles(samples))]
    torch.manual_seed(config["seed"])
    untrained, _ = build(config, len(config["roles"]), "cpu")

    parts = [("before training", similarities(untrained.eval(), tokenizer, config, samples, own)),
             ("after training", similarities(model, tokenizer, config, samples, own)),
             ("read in the next voice", similarities(model, tokenizer, config, samples, others))]
    R = len(config["roles"])
    cell = min(30, 190 // R)
    titles = ", ".join(title for title, _ in parts)
    svg = Svg(830, 160 + cell * R, f"Cosine of role embeddings and test answers: {titles}")
    for part, (title, matrix) in enumerate(parts):
        left = 190 + 215 * part
        svg.text(left + cell * R / 2, 20, title, weight="600")
        for i, name in enumerate(config["roles"]):
            if part == 0:
                svg.text(left - 10, 60 + cell * (i + 0.5), name, 13, anchor="end")
            svg.text(left + cell * (i + 0.5), 48, str(i), 11)
            for j in range(R):
                svg.cell(left + cell * j, 60 + cell * i, cell, matrix[i, j].item())
    svg.text(190 - 10, 48, "answers of role", 12, anchor="end")
    bottom = 90 + cell * R
    for i in range(5):
        svg.cell(190 + 60 * i, bottom, 22, i / 2 - 1)
        svg.text(190 + 60 * i + 27, bottom + 11, f"{i / 2 - 1:g}", 12, anchor="start")
    svg.text(500, bottom + 11, "cosine of z_{r} (rows) and z_{t} (columns)", 13, anchor="start")
    return svg


# ------------------------------------------------------------------------------------------------------ from a study
def kind_of(method):
    """The colour of a method: where the half that is not shared comes from."""
    sources = METHODS.get(method.split()[0], ("frozen",))
    for source, kind in (("hyper", "generated"), ("role", "role"), ("gated", "role"), ("shared", "shared")):
        if source in sources:
            return kind
    return "frozen"


def voice_and_fact(point):
    """Every method's ROUGE-L and right facts, of a point of results/STUDY.json; None where no fact was measured."""
    rows = [row for row in point["rows"] if row.get("kind", "all") == "all" and "fact" in row]
    if not rows:
        return None
    methods = list(dict.fromkeys(row["method"] for row in rows))
    splits = list(dict.fromkeys(row["split"] for row in rows))
    height = 34 * len(methods)
    svg = Svg(830, height + 140, "ROUGE-L and right facts of every method, in percent, on each kind of question.")

    for i, split in enumerate(splits):
        width = 620 / len(splits)
        axes = Axes(svg, (165 + (width + 25) * i, 50, width - 15, height), (0, 100), (len(methods), 0))
        axes.draw({n: str(n) for n in (0, 25, 50, 75, 100)}, {}, f"{split.replace('_', '-')}: percent", "")
        for row in (row for row in rows if row["split"] == split):
            n = methods.index(row["method"]) + 0.5
            kind = kind_of(row["method"])
            svg.path(axes.at(row["rougeL"], n), axes.at(row["fact"], n), arrow=False)
            svg.dot(*axes.at(row["rougeL"], n), kind, hollow=True)
            svg.dot(*axes.at(row["fact"], n), kind)
            if i == 0:
                svg.text(150, axes.at(0, n)[1], row["method"], anchor="end")

    svg.dot(220, 20, "frozen", hollow=True)
    svg.text(232, 20, "ROUGE-L: the voice, and the frame of the answer", 13, anchor="start")
    svg.dot(612, 20, "frozen")
    svg.text(624, 20, "right facts", 13, anchor="start")
    svg.legend(140, height + 124, ("shared", "role", "generated"))
    return svg
