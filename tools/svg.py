"""A small drawing board for the figures of the documents: boxes, matrices, arrows and text, as SVG.

The same colours mean the same everywhere (COLOURS). Text beside a box and lines take the ink of the reader's theme,
dark on white and light on black; text on a box is always dark, since boxes are light. No dependency.
"""
import re
from html import escape

COLOURS = {                             # fill, border
    "frozen": ("#c9d1d9", "#8b949e"),   # the language model: never trained
    "shared": ("#79c0ff", "#388bfd"),   # trained, the same for all roles
    "role": ("#d2a8ff", "#a371f7"),     # trained, the role's own
    "generated": ("#ffc680", "#e8912d"),    # made for the role by the hyper-network
}
MEANING = {"frozen": "frozen", "shared": "trained, shared by all roles", "role": "trained, a role's own",
           "generated": "generated for the role"}
STYLE = """
text { font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #768390; }
line, path, circle { stroke: #768390; fill: none; }
.arrowhead { fill: #768390; stroke: none; }
.on { fill: #1f2328; }
@media (prefers-color-scheme: light) {
  text { fill: #1f2328; } line, path, circle { stroke: #57606a; } .arrowhead { fill: #57606a; }
}
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } text.on { fill: #1f2328; }
  line, path, circle { stroke: #8b949e; } .arrowhead { fill: #8b949e; }
}
"""


class Svg:
    """A figure of `width` x `height` pixels; `title` is what a screen reader says."""
    def __init__(self, width, height, title):
        self.size = (width, height)
        self.title = title
        self.parts = []

    def text(self, x, y, text, size=14, anchor="middle", weight="normal", on=False):
        """A line of text, (x, y) its middle (or start, end) at the height of its letters' middle. h_{0}: a subscript.

        on: the text stands on a box.
        """
        parts = []
        for i, part in enumerate(re.split(r"_\{(.+?)\}", text)):
            if i % 2:
                down = 0.2 * size
                parts.append(f'<tspan dy="{down:.1f}" font-size="{0.75 * size:g}">{escape(part)}</tspan>'
                             f'<tspan dy="{-down:.1f}">&#8203;</tspan>')
            else:
                parts.append(escape(part))
        kind = ' class="on"' if on else ""
        self.parts.append(f'<text x="{x:g}" y="{y + 0.35 * size:g}" font-size="{size}" text-anchor="{anchor}" '
                          f'font-weight="{weight}"{kind}>{"".join(parts)}</text>')

    def lines(self, x, y, texts, size=14, **more):
        """Lines of text, one below the other, their block centred at y."""
        first = y - 0.65 * size * (len(texts) - 1)
        for i, text in enumerate(texts):
            self.text(x, first + 1.3 * size * i, text, size, **more)

    def box(self, x, y, width, height, texts=(), kind="frozen", size=14):
        """A box around (x, y), with lines of text."""
        fill, border = COLOURS[kind]
        self.parts.append(f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" '
                          f'rx="5" fill="{fill}" stroke="{border}" stroke-width="1.5"/>')
        self.lines(x, y, [texts] if isinstance(texts, str) else texts, size, on=True)

    def factor(self, x, y, text, kind, narrow="top", width=70, height=34):
        """A LoRA factor around (x, y): a trapezium, narrow at the side of the rank."""
        wide = width / 2
        thin = wide - 18
        top, bottom = (thin, wide) if narrow == "top" else (wide, thin)
        points = [(x - top, y - height / 2), (x + top, y - height / 2), (x + bottom, y + height / 2),
                  (x - bottom, y + height / 2)]
        fill, border = COLOURS[kind]
        corners = " ".join(f"{px:g},{py:g}" for px, py in points)
        self.parts.append(f'<polygon points="{corners}" fill="{fill}" stroke="{border}" stroke-width="1.5"/>')
        self.text(x, y, text, 15, on=True)

    def plus(self, x, y):
        """A circled plus."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" stroke-width="1.5"/>')
        self.text(x, y, "+", 17)

    def path(self, *points, arrow=True, dashed=False):
        """Straight lines from point to point, with an arrowhead at the end."""
        d = "M" + " L".join(f"{x:g},{y:g}" for x, y in points)
        more = ' stroke-dasharray="4 4"' if dashed else ""
        head = ' marker-end="url(#head)"' if arrow else ""
        self.parts.append(f'<path d="{d}" stroke-width="1.5"{more}{head}/>')

    def curve(self, points, kind, dashes="none"):
        """A thick line through points, in the colour of a kind; dashes: SVG's stroke-dasharray."""
        d = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        more = f' stroke-dasharray="{dashes}"' if dashes != "none" else ""
        self.parts.append(f'<polyline points="{d}" fill="none" stroke="{COLOURS[kind][1]}" stroke-width="3"{more}/>')

    def dot(self, x, y, kind, hollow=False):
        """A point of a plot; hollow: a ring."""
        border = COLOURS[kind][1]
        inside = "none" if hollow else border
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="6" '
                          f'style="fill:{inside};stroke:{border};stroke-width:2.5"/>')

    def cell(self, x, y, size, value):
        """A square of a heat map, (x, y) its left upper corner: blue at -1, grey at 0, orange at 1."""
        end = (31, 111, 235) if value < 0 else (219, 109, 40)
        weight = min(1, abs(value))
        red, green, blue = (round(208 + (e - 208) * weight) for e in end)
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{size}" height="{size}" '
                          f'fill="rgb({red},{green},{blue})"/>')

    def frame(self, x, y, width, height):
        """A dashed frame with (x, y) its left upper corner."""
        self.parts.append(f'<path d="M{x:g},{y:g} h{width:g} v{height:g} h{-width:g} z" stroke-dasharray="3 5"/>')

    def legend(self, x, y, kinds):
        """What the colours mean, in a row that starts at (x, y)."""
        for kind in kinds:
            self.box(x + 8, y, 16, 16, kind=kind)
            self.text(x + 24, y, MEANING[kind], 13, anchor="start")
            x += 50 + 7.3 * len(MEANING[kind])

    def __str__(self):
        width, height = self.size
        head = ('<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                'orient="auto-start-reverse"><path class="arrowhead" d="M0,1 L10,5 L0,9 z"/></marker></defs>')
        return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                          f'height="{height}" role="img">', f"<title>{escape(self.title)}</title>",
                          f"<style>{STYLE}</style>", head, *self.parts, "</svg>\n"])
