"""The figures of the documents, as SVG that reads on white and on black.

    python -m tools.figures                                      # to docs/figures
    python -m tools.figures --run runs/demo                      # and what is drawn from a trained run

`tools.svg` has the drawing board and the colours, `tools.plots` what is drawn from numbers.
"""
from console import one_line_errors

import argparse
from pathlib import Path

from files import parse_json, write_text
from tools.paper import trainable
from tools.plots import parameters, similarity, voice_and_fact
from tools.source import ROOT
from tools.svg import Svg

FOLDER = ROOT / "docs/figures"
STUDY = ROOT / "results/tiny.json"


def architecture():
    """The whole method, with the numbers of the equations."""
    svg = Svg(830, 535, "The hyper-network turns a role and a layer into a matrix A. A and the shared matrix B adapt a "
                        "frozen linear. Role embedding and response representation meet in the contrastive loss.")

    # the hyper-network, downward
    svg.frame(15, 55, 230, 385)
    svg.text(165, 41, "hyper-network", weight="600")
    svg.box(75, 95, 90, 46, ("role", "e_{c}"), "role")
    svg.box(185, 95, 90, 46, ("layer", "e_{l}"), "shared")
    svg.path((75, 118), (75, 156))
    svg.path((185, 118), (185, 156))
    svg.box(130, 182, 200, 50, ("W_{in}, ReLU", "Eq. 1"), "shared")
    svg.path((130, 207), (130, 241))
    svg.box(130, 267, 200, 50, ("N residual blocks", "Eq. 2"), "shared")
    svg.path((130, 292), (130, 326))
    svg.box(130, 352, 200, 50, ("D, U", "Eq. 3"), "shared")
    svg.path((230, 352), (302, 352))

    # an adapted linear, upward: the LoRA branch beside W_0
    svg.frame(275, 170, 250, 270)
    svg.text(280, 156, "each linear layer", anchor="start", weight="600")
    svg.text(395, 481, "x")
    svg.path((395, 470), (395, 425), arrow=False)
    svg.path((395, 425), (335, 425), (335, 371))
    svg.path((395, 425), (465, 425), (465, 366))
    svg.factor(335, 352, "A", "generated")
    svg.path((335, 335), (335, 291))
    svg.factor(335, 272, "B", "shared", narrow="bottom")
    svg.box(465, 312, 86, 106, "W_{0}", "frozen", size=16)
    svg.path((335, 255), (335, 205), (451, 205))
    svg.text(393, 193, "× α / r", 13)
    svg.path((465, 259), (465, 219))
    svg.plus(465, 205)
    svg.text(395, 240, "Eq. 4")
    svg.path((465, 193), (465, 121))

    # the model around it
    svg.box(400, 97, 250, 46, ("the rest of the language model", "to its hidden states"), "frozen")
    svg.path((525, 97), (547, 97), (547, 330), (606, 330))
    svg.path((547, 217), (586, 217))

    # the loss
    svg.text(640, 41, "loss, in training only", anchor="start", weight="600")
    svg.path((75, 72), (75, 15), (625, 15), (625, 92))
    svg.box(625, 117, 76, 48, ("W_{r}", "role"), "shared")
    svg.box(625, 217, 76, 48, ("W_{t}", "last token"), "shared", size=13)
    svg.text(625, 167, "Eq. 5")
    svg.path((663, 117), (688, 117), (688, 150), (712, 150))
    svg.path((663, 217), (688, 217), (688, 184), (712, 184))
    svg.text(686, 103, "z_{r}")
    svg.text(686, 232, "z_{t}")
    similarity_icon(svg, 762, 167)
    svg.text(762, 231, "Eq. 7")
    svg.path((762, 246), (762, 314))
    svg.text(752, 278, "Eq. 8: λ", anchor="end")
    svg.text(700, 330, "CE + λ · L_{cl}", 17, weight="600")
    svg.text(700, 358, "Eq. 6")
    svg.lines(687, 400, ("CE: cross-entropy of", "the response's tokens"), 13)

    svg.legend(66, 518, ("frozen", "shared", "role", "generated"))
    return svg


def similarity_icon(svg, x, y, cells=4, size=22):
    """A small matrix around (x, y): own responses on the diagonal, others beside it."""
    for i in range(cells):
        for j in range(cells):
            sign = "+" if i == j else "–"
            svg.box(x + (j - 1.5) * size, y + (i - 1.5) * size, size, size, sign, size=12)


def sharing():
    """Figure 1 of the paper: where A and B live."""
    svg = Svg(830, 385, "Three roles. (a) One LoRA for all: A and B are shared. (b) A LoRA for each: three A and B. "
                        "(c) HyCoRA: the hyper-network generates an A for each role, and B is shared.")
    panels = (("lora", "(a) one LoRA for all", "shared", "shared"),
              ("ind-lora", "(b) one LoRA for each", "role", "role"),
              ("hycora", "(c) HyCoRA: half and half", "generated", "shared"))
    for panel, (method, title, kind_a, kind_b) in enumerate(panels):
        middle = 140 + 275 * panel
        columns = (middle - 80, middle, middle + 80)
        svg.text(middle, 22, title, 16, weight="600")

        # a factor that is shared is as wide as all roles
        for name, kind, y, narrow in (("B", kind_b, 85, "bottom"), ("A", kind_a, 160, "top")):
            if kind == "shared":
                svg.factor(middle, y, name, kind, narrow, width=230, height=40)
                continue
            for x in columns:
                svg.factor(x, y, name, kind, narrow, height=40)
        for x in (middle,) if kind_a == "shared" else columns:
            svg.path((x, 139), (x, 108))

        # where the role comes in
        if kind_a == "generated":
            svg.box(middle, 245, 230, 40, "hyper-network", "shared")
        for i, x in enumerate(columns):
            if kind_a == "generated":
                svg.path((x, 224), (x, 184))
                svg.path((x, 291), (x, 268))
                svg.box(x, 305, 56, 28, f"e_{{{i}}}", "role")
            elif kind_a == "role":
                svg.path((x, 212), (x, 184))
                svg.text(x, 226, f"role {i}", 13)
        notes = {"shared": ("all roles pass through", "the same two matrices"),
                 "role": ("each pair sees the data", "of one role")}
        svg.lines(middle, 285, notes.get(kind_a, ()), 13)
        if kind_a == "shared":
            svg.path((middle, 212), (middle, 184))
            svg.text(middle, 226, "the prompt names the role", 13)
        svg.text(middle, 343, f"{trainable(method, 95) / 1e6:,.0f} M", 15, weight="600")
    svg.lines(415, 369, ["trainable numbers of LLaMA-2-7B with 95 roles"], 13)
    return svg


def batch():
    """A batch of the roles 4, 0, 4: one call of the hyper-network, whose matrices go to rows and linears."""
    svg = Svg(830, 330, "A batch whose rows have the roles 4, 0 and 4. The hyper-network runs once, for roles 0 and 4 "
                        "and for all linears. Each linear takes its matrices, one for each row.")
    rows = (110, 170, 230)
    svg.text(60, 55, "rows", weight="600")
    for y, role in zip(rows, (4, 0, 4)):
        svg.box(60, y, 90, 40, f"role {role}", "role")

    # the distinct roles
    svg.text(195, 55, "distinct roles", weight="600")
    svg.box(195, 140, 70, 40, "0", "role")
    svg.box(195, 200, 70, 40, "4", "role")
    for y, target in zip(rows, (200, 140, 200)):
        svg.path((105, y), (158, target))

    # one call
    svg.box(325, 170, 110, 100, ("hyper-", "network:", "one call"), "shared")
    svg.path((230, 140), (268, 160))
    svg.path((230, 200), (268, 180))
    svg.path((380, 170), (414, 170))

    # A for every role and linear
    svg.text(515, 35, "A of each role", weight="600")
    svg.text(515, 55, "in each linear", weight="600")
    columns = (440, 490, 540, 590)
    for y, role in ((140, 0), (200, 4)):
        for x in columns:
            svg.box(x, y, 46, 46, "…" if x == 540 else f"A_{{{role}}}", "generated")
    for x, text in zip(columns, ("1", "2", "", "224")):
        svg.text(x, 103, text, 13)
    svg.text(572, 242, "linears", 13)

    # what one linear gets
    svg.frame(466, 88, 48, 142)
    svg.path((490, 230), (490, 290), (655, 290), (655, 170), (684, 170))
    svg.text(740, 35, "in linear 2,", weight="600")
    svg.text(740, 55, "for each row", weight="600")
    for y, role in zip(rows, (4, 0, 4)):
        svg.factor(720, y, f"A_{{{role}}}", "generated")
        svg.path((756, y), (778, 170 + (y - 170) / 3))
    svg.box(796, 170, 30, 150, "B", "shared")
    svg.legend(80, 312, ("shared", "role", "generated"))
    return svg


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--run", type=Path, help="a finished run of hycora: draws its similarities too")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    with one_line_errors("tools.figures"):
        figures = {draw.__name__: draw() for draw in (architecture, sharing, batch, parameters)}
        if args.run:
            figures["similarity"] = similarity(args.run)
        study = parse_json(STUDY.read_bytes(), STUDY)
        figures["voice-and-fact"] = voice_and_fact(next(iter(study["points"].values())))
        args.out.mkdir(parents=True, exist_ok=True)
        drawn = {name: svg for name, svg in figures.items() if svg}
        for name, svg in drawn.items():
            write_text(args.out / f"{name}.svg", str(svg))
        print(f"wrote {', '.join(drawn)} to {args.out}")


if __name__ == "__main__":
    main()
