"""Figures of the studies with several points, for `tools.figures`: nats per token of each method, point by point."""
import math

from tools.plots import Axes, kind_of
from tools.svg import Svg

LEAST_GAP = 17                          # pixels between the names at the ends of two lines
DASHES = ("none", "9 5", "2 4")         # of the methods of one colour
ROUND = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), range(10, 100), range(100, 1000))       # digits, coarse to fine


def curves(points, parts, x_title, top=math.inf):
    """The nats of every method at every point of results/STUDY.json; a panel for each (split, kind) of `parts`.

    The scale of the nats is logarithmic. Vertical lines are the deviation over the seeds. The points are evenly spaced,
    whatever their numbers are. A mean above `top` is left out; an arrow beside the method's name says so.
    """
    svg = Svg(830, 350, f"Nats per token of every method against {x_title}, lower is better.")
    width = 760 / len(parts)
    for i, (split, kind) in enumerate(parts):
        lines = below(lines_of(points, split, kind), top)
        low, high = limits(lines)
        box = (62 + (width + 10) * i, 50, width - 170, 230)
        axes = Axes(svg, box, (-0.3, len(points) - 0.7), (math.log(low), math.log(high)))
        title = kind if kind != "all" else split.replace("_", "-")
        axes.draw(dict(enumerate(points)), ticks(low, high), x_title, f"{title}: nats")
        kinds = [kind_of(method.rstrip(" ↑")) for method in lines]
        for n, of_points in enumerate(lines.values()):
            draw_line(axes, of_points, kinds[n], DASHES[kinds[:n].count(kinds[n]) % len(DASHES)])
        names = {method: axes.at(0, math.log(max(of_points.items())[1][0]))[1] for method, of_points in lines.items()}
        right = axes.at(len(points) - 0.7, math.log(low))[0]
        for method, y in spread(names).items():
            svg.text(right + 8, y, method, 13, anchor="start")
    return svg


def lines_of(points, split, kind):
    """{method: {number of the point: (mean, deviation over the seeds or None)}} of a part of the test lines."""
    lines = {}
    for n, point in enumerate(points.values()):
        for row in point["likelihood"]["rows"]:
            if (row["split"], row["kind"], row["role"]) == (split, kind, "all"):
                lines.setdefault(row["method"], {})[n] = (row["right"]["mean"], row["right"]["std"])
    return lines


def below(lines, top):
    """The lines without the points whose mean is above `top`; the name of a line that has one gets an arrow."""
    shown = {}
    for method, of_points in lines.items():
        left = {n: mean for n, mean in of_points.items() if mean[0] <= top}
        shown[method if len(left) == len(of_points) else f"{method} ↑"] = left
    return shown


def limits(lines):
    """The range of the vertical axis, in nats."""
    values = [value for of_points in lines.values() for mean in of_points.values() for value in ends(*mean)]
    margin = (max(values) / min(values)) ** 0.06 * 1.01
    return min(values) / margin, max(values) * margin


def ends(mean, deviation):
    """A mean less and plus its deviation; on a logarithmic scale not less than half of it."""
    deviation = deviation or 0
    return max(mean - deviation, mean / 2), mean + deviation


def ticks(low, high):
    """{logarithm: text} of at least three round numbers within a range."""
    for digits in ROUND:
        decades = range(math.floor(math.log10(low)) - 2, math.ceil(math.log10(high)) + 1)
        values = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        values = [value for value in values if low <= value <= high]
        if len(values) >= 3:
            break
    values = values[::math.ceil(len(values) / 7)]                        # no more than fit
    return {math.log(value): f"{value:g}" for value in values}


def draw_line(axes, of_points, kind, dashes):
    """A method: a line through its points, with their deviations."""
    axes.svg.curve([axes.at(n, math.log(mean)) for n, (mean, _) in sorted(of_points.items())], kind, dashes)
    for n, (mean, deviation) in of_points.items():
        axes.svg.dot(*axes.at(n, math.log(mean)), kind)
        if deviation:
            low, high = ends(mean, deviation)
            axes.svg.path(axes.at(n, math.log(low)), axes.at(n, math.log(high)), arrow=False)


def spread(heights):
    """{name: height} moved apart, so that no two are closer than LEAST_GAP; their order and middle stay."""
    names = sorted(heights, key=heights.get)
    placed = []
    for name in names:
        least = placed[-1] + LEAST_GAP if placed else -math.inf
        placed.append(max(heights[name], least))
    shift = (sum(heights.values()) - sum(placed)) / len(names)
    return {name: y + shift for name, y in zip(names, placed)}
