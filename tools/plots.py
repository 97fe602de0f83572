"""Figures that are drawn from numbers, for `tools.figures`: parameter counts, and the methods of a study."""
import math

from hycora_layer import METHODS
from tools.params import trainable
from tools.scarcity import thirds
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
    """Figure 3 of the paper: trainable parameters against roles, for LLaMA-2-7B."""
    svg = Svg(830, 360, "Trainable parameters of LLaMA-2-7B from 1 to 1,000 roles: a LoRA for each role grows from 20 "
                        "million to 20 billion, one shared LoRA stays at 20 million and HyCoRA at 21 million.")
    axes = Axes(svg, (100, 45, 560, 250), (1, 1000), (8e6, 3e10), log=True)
    axes.draw({1: "1", 10: "10", 100: "100", 1000: "1,000"},
              {1e7: "10 M", 1e8: "100 M", 1e9: "1 B", 1e10: "10 B"}, "roles", "trainable parameters")

    more = {}
    for method, kind in LINES.items():
        first = trainable(method, 1)
        more[method] = trainable(method, 2) - first
        roles = [10 ** (k / 20) for k in range(61)]                      # from 1 to 1000, evenly on a logarithmic axis
        svg.curve([axes.at(n, first + (n - 1) * more[method]) for n in roles], kind)

    x, y = axes.at(1000, 2e10)
    svg.text(x + 12, y, "one LoRA for each", anchor="start")
    x, y = axes.at(1000, 2.05e7)
    svg.text(x + 12, y - 12, "HyCoRA", anchor="start")
    svg.text(x + 12, y + 10, "one LoRA for all", anchor="start")
    svg.text(*axes.at(10, 1.6e9), f"{more['ind-lora']:,} more with each role", 13)
    svg.text(*axes.at(10, 4e7), f"{more['hycora']:,} more with each role", 13)
    return svg


def kind_of(method):
    """The colour of a method: where the half that is not shared comes from."""
    name = "hycora" if method.startswith("HCL") else method.split()[0]
    sources = METHODS.get(name, ("frozen",))
    for source, kind in (("hyper", "generated"), ("role", "role"), ("gated", "role"), ("shared", "shared")):
        if source in sources:
            return kind
    return "frozen"


def voice_and_fact(point):
    """Every method's ROUGE-L and right facts, of a point of results/STUDY.json."""
    rows = [row for row in point["rows"] if row["kind"] == "all" and row["fact"]]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    splits = list(dict.fromkeys(row["split"] for row in rows))
    height = 44 * len(methods)
    svg = Svg(830, height + 140, "ROUGE-L and right facts of every method, in percent, on each kind of question.")

    for i, split in enumerate(splits):
        width = 620 / len(splits)
        axes = Axes(svg, (165 + (width + 25) * i, 50, width - 15, height), (0, 100), (len(methods), 0))
        axes.draw({n: str(n) for n in (0, 25, 50, 75, 100)}, {}, f"{split.replace('_', '-')} questions: percent", "")
        for row in (row for row in rows if row["split"] == split):
            n = methods.index(row["method"])
            mark(axes, row, "rougeL", n + 0.3, hollow=True)
            mark(axes, row, "fact", n + 0.7)
            if i == 0:
                svg.text(150, axes.at(0, n + 0.5)[1], row["method"], anchor="end")

    svg.dot(74, 20, "frozen", hollow=True)
    svg.text(90, 20, "ROUGE-L: the voice, and the frame of the answer", 13, anchor="start")
    svg.dot(440, 20, "frozen")
    svg.text(456, 20, "right facts", 13, anchor="start")
    svg.text(790, 20, seeds_of(rows), 13, anchor="end")
    svg.legend(66, height + 124, ("frozen", "shared", "role", "generated"))
    return svg


def mark(axes, row, metric, y, hollow=False):
    """A metric of a method: a dot and its number; the standard deviation over the seeds is a line to both sides."""
    mean = row[metric]["mean"]
    deviation = row[metric]["std"]
    x, y = axes.at(mean, y)
    axes.svg.dot(x, y, kind_of(row["method"]), hollow)

    # the line begins at the rim of the dot, and may be hidden by it
    text = f"{mean:.1f}"
    reach = 6
    if deviation is not None:
        text = f"{mean:.1f} ± {deviation:.1f}"
        reach = max(reach, axes.width * deviation / 100)
        for side in (-1, 1):
            axes.svg.path((x + 6 * side, y), (x + reach * side, y), arrow=False)
    if mean < 50:
        axes.svg.text(x + reach + 6, y, text, 12, anchor="start")
    else:
        axes.svg.text(x - reach - 6, y, text, 12, anchor="end")


def differences_of(point, column="right", split=None, kind="all"):
    """{method: what it has over the first in nats per token, with its interval} of a point of results/STUDY.json."""
    return {d["method"]: d[column] for d in point["likelihood"]["differences"] if not d["method"].startswith("backbone")
            and d["role"] == "all" and d["kind"] == kind and split in (None, d["split"])}


def difference_panels(panels, about, x_title, same_scale=False):
    """A panel for each of {title: `differences_of`}: a dot for a difference, a line for its 95 % interval."""
    methods = list(dict.fromkeys(method for of_methods in panels.values() for method in of_methods))
    height = 34 * len(methods)
    width = 600 / len(panels)
    svg = Svg(830, height + 150, f"{about}, with 95 % intervals.")
    for i, (title, of_methods) in enumerate(panels.items()):
        shown = panels.values() if same_scale else [of_methods]
        ends = [end for of in shown for d in of.values() for end in d["interval"]]
        low, high = 1.1 * min(0, *ends), 1.1 * max(0, *ends)
        axes = Axes(svg, (215 + width * i, 50, width - 25, height), (low, high), (len(methods), 0))
        axes.draw(round_numbers(low, high), {}, x_title, "")
        svg.text(axes.left + axes.width / 2, 25, title, weight="600")
        svg.path(axes.at(0, 0), axes.at(0, len(methods)), arrow=False, dashed=True)
        for n, method in enumerate(methods):
            if i == 0:
                svg.text(200, axes.at(low, n + 0.5)[1], method, anchor="end")
            if method in of_methods:
                found = of_methods[method]
                svg.curve([axes.at(end, n + 0.5) for end in found["interval"]], kind_of(method))
                svg.dot(*axes.at(found["difference"], n + 0.5), kind_of(method))
    svg.legend(66, height + 132, ("shared", "role", "generated"))
    return svg


def lead_panels(panels):
    """A panel for each of {title: (method, `tools.scarcity.leads`)}: a dot for a role, and a line for each third of the
    roles, at its mean lead and from its fewest to its most training lines."""
    svg = Svg(830, 380, "HyCoRA's lead in nats per token over other methods, by the training lines of a role.")
    ends = [lead for _, rows in panels.values() for _, _, lead, _ in rows]
    low, high = 1.1 * min(0, *ends), 1.1 * max(0, *ends)
    width = 700 / len(panels)
    for i, (title, (method, rows)) in enumerate(panels.items()):
        axes = Axes(svg, (90 + width * i, 50, width - 40, 260), (60, 270), (low, high))
        axes.draw({n: str(n) for n in (100, 150, 200, 250)}, round_numbers(low, high), "training lines of the role",
                  "nats ahead" if i == 0 else "")
        svg.text(axes.left + axes.width / 2, 25, title, weight="600")
        svg.path(axes.at(60, 0), axes.at(270, 0), arrow=False, dashed=True)
        for _, lines, lead, _ in rows:
            svg.dot(*axes.at(lines, lead), kind_of(method), hollow=True)
        for third in thirds(rows):
            mean = sum(lead for _, _, lead, _ in third) / len(third)
            svg.curve([axes.at(third[0][1], mean), axes.at(third[-1][1], mean)], "generated")
    return svg


def round_numbers(low, high):
    """{value: text} of two to five round numbers from low to high, 0 among them."""
    decade = 10.0 ** math.floor(math.log10(high - low))
    step = next(digit * decade for digit in (0.2, 0.5, 1, 2) if (high - low) / (digit * decade) < 5)
    return {n * step: f"{n * step:g}" for n in range(math.ceil(low / step), math.floor(high / step) + 1)}


def seeds_of(rows):
    """"one seed", "mean ± deviation of 5 seeds", or of "1 to 5" where methods differ."""
    seeds = sorted({row["seeds"] for row in rows})
    if seeds == [1]:
        return "one seed"
    number = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else seeds[0]
    return f"mean ± deviation of {number} seeds"
