"""Diagrams of how roles share matrices, for `tools.figures`: where A and B live, and a batch of several roles."""
from tools.params import trainable
from tools.svg import Svg


def sharing():
    """Figure 1 of the paper: where A and B live."""
    svg = Svg(830, 385, "Three roles. (a) One LoRA for all: A and B are shared. (b) A LoRA for each: three A and B. "
                        "(c) HyCoRA: the hyper-network generates an A for each role, and B is shared.")
    panels = ((140, "lora", "(a) one LoRA for all", "shared", "shared"),
              (415, "ind-lora", "(b) one LoRA for each", "role", "role"),
              (690, "hycora", "(c) HyCoRA: half and half", "generated", "shared"))
    for middle, method, title, kind_a, kind_b in panels:
        svg.text(middle, 22, title, 16, weight="600")
        factors(svg, "B", kind_b, middle, 85, narrow="bottom")
        for x in factors(svg, "A", kind_a, middle, 160, narrow="top"):
            svg.path((x, 139), (x, 108))
            svg.path((x, 212), (x, 184))
        svg.text(middle, 343, f"{trainable(method, 95) / 1e6:,.0f} M", 15, weight="600")
    svg.text(415, 369, "trainable parameters of LLaMA-2-7B with 95 roles", 13)

    # where the role comes in
    svg.text(140, 226, "the prompt names the role", 13)
    svg.lines(140, 285, ("all roles pass through", "the same two matrices"), 13)
    for i, x in enumerate((335, 415, 495)):
        svg.text(x, 226, f"role {i}", 13)
    svg.lines(415, 285, ("each pair sees the data", "of one role"), 13)
    svg.box(690, 232, 230, 40, "hyper-network", "shared")
    for i, x in enumerate((610, 690, 770)):
        svg.path((x, 286), (x, 255))
        svg.box(x, 300, 56, 28, f"e_{{{i}}}", "role")
    return svg


def factors(svg, name, kind, middle, y, narrow):
    """One factor as wide as all roles where it is shared, else one for each role. Returns where they stand."""
    if kind == "shared":
        svg.factor(middle, y, name, kind, narrow, width=230, height=40)
        return (middle,)
    columns = (middle - 80, middle, middle + 80)
    for x in columns:
        svg.factor(x, y, name, kind, narrow, height=40)
    return columns


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
