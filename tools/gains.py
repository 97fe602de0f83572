"""What runs gain over others on the test lines that both have read, such as a method with 95 roles over one with ten.

    python -m tools.gains --pair runs/reproduce/ten-roles/all/hycora runs/reproduce/many-roles/all/hycora
    python -m tools.gains --pair BEFORE AFTER --pair BEFORE AFTER      # and what the second gains more than the first

BEFORE and AFTER are folders of runs that differ in their seed, by which they are named. A row is AFTER - BEFORE in each
measure of likelihood (tools/likelihoods.py), seed by seed, on the test lines that all of them have read; intervals draw
lines and seeds anew, together. With other roles, the wrong ones that a line is read as are others too.
"""
from console import Parser, one_line_errors, render_table

from pathlib import Path

import numpy as np

from tools.compare import drawn_together, pair_up, selections, side_by_side
from tools.likelihoods import COLUMNS, likelihood_tables, read_likelihood


def seeds_of(folder):
    """{seed: {test line: its number in each of COLUMNS}} of a folder's runs. ValueError if none has likelihoods."""
    seeds = {}
    for path in sorted(Path(folder).glob("*/likelihood.jsonl")):
        items, values = read_likelihood(path)
        seeds[path.parent.name] = dict(zip(items, values))
    if not seeds:
        raise ValueError(f"{folder} has no run with likelihoods: name a folder of runs, such as runs/.../hycora")
    return seeds


def pairs_side_by_side(pairs):
    """`side_by_side` of AFTER - BEFORE of each pair of folders. ValueError for runs that have no seed or no test line
    in common."""
    folders = {}
    for before, after in pairs:
        name = Path(after).name
        if Path(before).name != name or name in folders:
            name = f"{before} to {after}"
        folders[name] = seeds_of(before), seeds_of(after)
    lines = [set(of_seed) for sides in folders.values() for side in sides for of_seed in side.values()]
    items = sorted(set.intersection(*lines))
    if not items:
        raise ValueError("the runs have read no test line in common")

    differences = {}
    seeds = {}
    for name, (before, after) in folders.items():
        seeds[name] = [seed for seed in before if seed in after]
        if not seeds[name]:
            raise ValueError(f"{name}: no seed is on both sides")
        of_both = [[[side[seed][item] for item in items] for seed in seeds[name]] for side in (after, before)]
        differences[name] = np.subtract(*of_both)                                # (seeds, items, columns)

    first = next(iter(seeds.values()))
    paired = {name: pair_up(of_name, first) for name, of_name in seeds.items()}
    chosen = selections(items, per_role=False)
    return side_by_side(differences, COLUMNS, chosen, paired, drawn_together(items, by_question=False))


@one_line_errors("tools.gains")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", nargs=2, action="append", required=True, metavar=("BEFORE", "AFTER"))
    args = parser.parse_args()
    tables = likelihood_tables(pairs_side_by_side(args.pair), gains=COLUMNS)
    print("\n\n".join(render_table(table) for table in tables))


if __name__ == "__main__":
    main()
