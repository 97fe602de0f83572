"""Do the roles with few training lines gain most? One method's lead over another, role by role.

    python -m tools.scarcity --runs runs/ind-lora runs/hycora

The lead of the second run is by how many nats per token it is better on a role's references. If sharing helps where
data are scarce, the lead grows as a role has fewer training lines: Spearman's rank correlation over the roles is below
0. As roles with more lines may be the harder ones, there is a partial one too, "between roles of equal difficulty",
given the mean nats of both runs. The 95 % intervals, also that of the mean lead, draw the roles anew.
"""
from console import Parser, counted, one_line_errors, render_table

from collections import Counter
from pathlib import Path

import numpy as np

from checkpoint import read_run
from eval import training_samples
from metrics import bootstrap
from tools.likelihoods import read_likelihood

PARTS = 3                               # of the roles, by their number of lines


def role_means(run):
    """({role: mean nats per token as the right role}, the lines that were read) of a run's likelihood.jsonl."""
    path = Path(run) / "likelihood.jsonl"
    if not path.is_file():
        raise ValueError(f"{run} has no likelihoods: python eval.py --run {run} --likelihood")
    items, values = read_likelihood(path)
    of_role = {}
    for (_, role, _, _), (right, *_) in zip(items, values):
        of_role.setdefault(role, []).append(right)
    return {role: float(np.mean(nats)) for role, nats in of_role.items()}, items


def training_lines(run):
    """{role: number of lines} that a run was trained on."""
    return Counter(sample.role for sample in training_samples(read_run(run)))


def leads(lines, first, second):
    """[(role, training lines, lead of the second, mean of both)] in nats, by lines, of two methods' {role: nats}."""
    rows = [(role, lines[role], first[role] - second[role], (first[role] + second[role]) / 2) for role in first]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def thirds(rows):
    """`leads` in three parts, from the roles with the fewest lines to those with the most."""
    return [rows[part * len(rows) // PARTS:(part + 1) * len(rows) // PARTS] for part in range(PARTS)]


def lead_table(rows, name):
    """`leads` as rows of text, headings first: the mean lead of each third of the roles."""
    table = [["roles", "training lines", f"mean lead of {name}, nats per token"]]
    for of_part in thirds(rows):
        lead = sum(row[2] for row in of_part) / len(of_part)
        table.append([str(len(of_part)), f"{of_part[0][1]} to {of_part[-1][1]}", f"{lead:+.4f}"])
    return table


def describe(rows):
    """The mean lead and its rank correlation with the training lines, with intervals over the roles, as a line."""
    _, lines, lead, difficulty = zip(*rows)
    ahead = sum(nats > 0 for nats in lead)
    low, high = bootstrap(lead)
    text = f"mean lead over {len(rows)} roles: {np.mean(lead):+.4f} [{low:+.4f}, {high:+.4f}], above 0 in {ahead}"

    for what, columns in (("rank correlation of training lines and lead", (lines, lead)),
                          ("between roles of equal difficulty", (lines, lead, difficulty))):
        found, (low, high) = correlation(*columns)
        text += f"; {what}: {found:+.2f} [{low:+.2f}, {high:+.2f}]"
    return text


def ranks(values):
    """Ranks from 0; equal values share their mean rank."""
    values = np.asarray(values, dtype=float)
    below = (values[:, None] > values).sum(1)
    equal = (values[:, None] == values).sum(1)
    return below + (equal - 1) / 2


def spearman(x, y, given=None):
    """Spearman's rank correlation of x and y, or the partial one given a third; NaN if one of them is constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if given is None:
            return float(np.corrcoef(ranks(x), ranks(y))[0, 1])
        xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
        return float((xy - xz * yz) / np.sqrt((1 - xz ** 2) * (1 - yz ** 2)))


def correlation(*columns, resamples=1000, seed=0):
    """(`spearman` of two or three columns, its 95 % interval by drawing the roles anew)."""
    columns = np.asarray(columns, dtype=float)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(columns.shape[1], size=columns.shape[1])
        drawn.append(spearman(*columns[:, chosen]))
    return spearman(*columns), np.nanpercentile(drawn, (2.5, 97.5)).tolist()


def scarcity(first, second):
    """`leads` of two runs. ValueError unless both read the same test lines."""
    of_first, items = role_means(first)
    of_second, others = role_means(second)
    if items != others:
        raise ValueError(f"{second} read other test lines than {first}: measure both on the same lines")
    return leads(training_lines(first), of_first, of_second)


@one_line_errors("tools.scarcity")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs=2, required=True, metavar="RUN", help="two runs with likelihoods")
    args = parser.parse_args()
    rows = scarcity(*args.runs)
    if len(rows) < 2 * PARTS:
        raise ValueError(f"{args.runs[0]} reads {counted(len(rows), 'role')}: too few for a correlation")
    if len({row[1] for row in rows}) == 1:
        raise ValueError(f"{args.runs[0]}: all roles have {counted(rows[0][1], 'training line')}: nothing to correlate")
    print(render_table(lead_table(rows, args.runs[1])))
    print(describe(rows))


if __name__ == "__main__":
    main()
