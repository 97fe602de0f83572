"""The figures of the documents, as SVG that reads on white and on black.

    python -m tools.figures                      # to docs/figures; the scores are those of results/*.json
    python -m tools.figures --run tiny/run       # and the similarities that Eq. 7 is about, before and after training

The architecture is drawn here, how roles share matrices by `tools.diagrams`, numbers by `tools.plots`,
`tools.curves` and `tools.similarity`; `tools.svg` has the drawing board and the colours.
"""
from console import Parser, one_line_errors

from pathlib import Path

from files import ROOT, read_json, write_text
from tools.curves import curves
from tools.diagrams import batch, sharing
from tools.plots import difference_panels, differences_of, lead_panels, parameters, voice_and_fact
from tools.scarcity import leads
from tools.similarity import similarity
from tools.svg import Svg

FOLDER = ROOT / "docs/figures"
REAL = {"ten-roles": "English, 10 roles", "many-roles": "English, 95 roles", "five-roles-zh": "Chinese, 5 roles"}
CURVES = {                              # studies with several points: parts of the lines, title, highest nats
    "tiny-lr": ([("general", "all"), ("role_specific", "own")], "learning rate"),
    "tiny-rank": ([("general", "all"), ("role_specific", "own")], "rank"),
    "many-lr": ([("role_specific", "all")], "learning rate"),
    "ten-lr": ([("role_specific", "all")], "learning rate", 1.95),
    "general-lr": ([("general", "all"), ("role_specific", "all")], "learning rate"),
    "zh-lr": ([("role_specific", "all")], "learning rate"),
    "tiny-data": ([("general", "all"), ("role_specific", "own")], "lines per role and split"),
}


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


def similarity_icon(svg, x, y):
    """A small matrix around (x, y): own responses on the diagonal, others beside it."""
    size = 22
    for i in range(4):
        for j in range(4):
            sign = "+" if i == j else "–"
            svg.box(x + (j - 1.5) * size, y + (i - 1.5) * size, size, size, sign, size=12)


def real_models():
    """Nats per token of every method on real models, minus HyCoRA's."""
    panels = {title: differences_of(points_of(study)["all"]) for study, title in REAL.items()}
    about = "Nats per token of every method minus those of HyCoRA"
    return difference_panels(panels, about, "nats, minus HyCoRA's", same_scale=True)


def general():
    """Nats per token of every method on both splits of real data, minus HyCoRA's."""
    panels = by_split(points_of("ten-general")["all"])
    about = "Nats per token of every method minus those of HyCoRA, in general and in role-specific questions"
    return difference_panels(panels, about, "nats, minus HyCoRA's", same_scale=True)


def contrastive_loss():
    """What each setting of the contrastive loss adds to `wrong - right`, in the small world."""
    panels = by_split(points_of("tiny-hcl")["all"], "wrong - right")
    about = "What each setting of the contrastive loss adds to the distance of a wrong role from the right one"
    return difference_panels(panels, about, "wrong - right, nats added")


def generated_a():
    """Nats per token of methods that share less than HyCoRA, minus its own."""
    small, real = points_of("tiny")["all"], points_of("ten-roles")["all"]
    panels = {"own facts": differences_of(small, kind="own"),
              "facts taught only to others": differences_of(small, kind="town, not taught"),
              "ten roles, SmolLM2": differences_of(real)}
    chosen = ("ind-lora", "ind-a-mrs-b", "mrs-a-rsp-b", "rsp-a-rsp-b")
    for title, of_methods in panels.items():
        panels[title] = {method: of_methods[method] for method in chosen if method in of_methods}
    about = "Nats per token of methods that share less than HyCoRA, minus those of HyCoRA"
    return difference_panels(panels, about, "nats, minus HyCoRA's")


def few_lines():
    """HyCoRA's lead over one LoRA per role, and over a shared one, in each of the 95 roles, by their training lines."""
    roles = points_of("many-roles")["all"]["by role"]
    panels = {}
    for title, other in (("over one LoRA per role", "ind-lora"), ("over a shared LoRA, told the role", "lora")):
        panels[title] = other, leads(roles["lines"], roles["nats"][other], roles["nats"]["hycora"])
    return lead_panels(panels)


def by_split(point, column="right"):
    """{title of a split: `differences_of`} of a point."""
    return {f"{split.replace('_', '-')} questions": differences_of(point, column, split)
            for split in ("general", "role_specific")}


def points_of(study):
    """The points of results/STUDY.json."""
    return read_json(ROOT / f"results/{study}.json")["points"]


DRAWS = (architecture, sharing, batch, parameters, real_models, general, contrastive_loss, generated_a, few_lines)


@one_line_errors("tools.figures")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, help="a finished run of hycora: draws its similarities too")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()

    figures = {draw.__name__.replace("_", "-"): draw() for draw in DRAWS}
    if args.run:
        figures["similarity"] = similarity(args.run)
    figures["voice-and-fact"] = voice_and_fact(points_of("tiny")["all"])
    figures |= {study: curves(points_of(study), *about) for study, about in CURVES.items()}

    args.out.mkdir(parents=True, exist_ok=True)
    for name, svg in figures.items():
        write_text(args.out / f"{name}.svg", str(svg))
    print(f"wrote {', '.join(figures)} to {args.out}")


if __name__ == "__main__":
    main()
