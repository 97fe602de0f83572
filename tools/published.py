"""results/STUDY.json outlives its runs: what of it stays when tools.reproduce writes it anew, what would be lost."""
from files import read_json, reading


def read_published(path, arguments, here):
    """The published results of a study; None where there are none. Points of which nothing is run here will stay.

    here: {(point, variant): its seeds} of what is finished here or going to be run. ValueError if a point that is run
    here would lose a variant, or seeds of it, or if one that stays was made with other arguments.
    """
    if not path.is_file():
        return None
    published = read_json(path)
    with reading(path, "results of a study"):
        has = {}                                                         # {(point, variant): number of seeds}
        for at, of in published["points"].items():
            has |= {(at, row["method"]): row["seeds"] for row in of["rows"] if row["method"] in of["runs"]}
        made_with = published["arguments"]
        if not isinstance(published["torch"], str) or not isinstance(published["across"], list):
            raise ValueError("torch is not text, or across not a list")

    points = {at for at, _ in here}
    lost = {name for (at, name), seeds in has.items() if at in points and len(here.get((at, name), ())) < seeds}
    if lost:
        raise ValueError(f"{path} would lose {', '.join(sorted(lost))}, or seeds of it: run all of its runs here too, "
                         f"or --replace")
    if made_with != arguments and any(at not in points for at, _ in has):
        raise ValueError(f"{path} was made with {made_with}: run its points with that, or --replace")
    return published


def with_published(result, published, order):
    """A study's results, with the published ones of points that were not run here; order: that of the points.

    What compares points takes the runs of both: published rows of "across" go with a point that was run here, and
    "best" is [], and "at best" gone, unless all points were.
    """
    points = published["points"] | result["points"]
    torch = dict.fromkeys([*published["torch"].split(", "), *result["torch"].split(", ")])

    # what was gained from the first point to others, which takes the runs of both
    across = [row for row in published["across"] if not {row["from"], row["to"]} & set(result["points"])]
    across += [row for row in result["across"] if row["from"] == next(iter(order))]

    # the best point of each method, which takes the runs of all
    if published["points"].keys() - result["points"].keys():
        result = {key: value for key, value in result.items() if key != "at best"} | {"best": []}
    return result | {"torch": ", ".join(torch), "across": across,
                     "points": {at: points[at] for at in [*order, *points] if at in points}}
