"""tools.scarcity: a method's lead by the number of a role's training lines."""
import json

import numpy as np
import pytest
from conftest import SEED, command, write_rolebench

from files import write_jsonl
from tools.scarcity import correlation, ranks, spearman


def test_the_correlation_is_scipys():
    scipy = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(SEED)
    for _ in range(20):
        x, y = rng.integers(6, size=30), rng.normal(size=30)             # with ties
        assert spearman(x, y) == pytest.approx(scipy.spearmanr(x, y).statistic)
        z = x + rng.normal(size=30)                                      # partial: what is left of the ranks after a line through those of z
        left = [r - np.polyval(np.polyfit(ranks(z), r, 1), ranks(z)) for r in (ranks(x), ranks(y))]
        assert spearman(x, y, z) == pytest.approx(np.corrcoef(*left)[0, 1])
    assert np.isnan(spearman([1, 1], [1, 2])) and np.isnan(spearman([1, 2, 3], [1, 3, 2], [4, 4, 4]))
    found, (low, high) = correlation(np.arange(40), -np.arange(40) + rng.normal(size=40))
    assert low <= found <= high < -0.9


def test_the_lead_of_the_roles_with_few_lines(tmp_path):
    """Six roles with 1 to 6 lines: the second run is better by 0.6 nats where there is one, by 0.1 where there are six."""
    names = "ABCDEF"
    lines = [(role, f"q{n}", ["x"]) for count, role in enumerate(names, 1) for n in range(count)]
    write_rolebench(tmp_path / "data", lines)
    runs = []
    for run in ("first", "second"):
        runs.append(tmp_path / run)
        runs[-1].mkdir()
        (runs[-1] / "config.json").write_text(json.dumps({"model": "m", "data": str(tmp_path / "data"), "language": "en", "splits": ["role_specific"]}))
        (runs[-1] / "roles.json").write_text(json.dumps({role: i for i, role in enumerate(names)}))
    assert "no likelihoods" in command("tools.scarcity", "--runs", *runs, ok=False).stderr

    for run, worse in zip(runs, (1, 0)):
        read = [{"split": "role_specific", "role": role, "question": q, "right": 2 + 0.1 * worse * (6 - i), "wrong": [], "zero": 3.0}
                for i, role in enumerate(names) for q in "ab"]
        write_jsonl(run / "likelihood.jsonl", read)
    done = command("tools.scarcity", "--runs", *runs)
    assert "mean lead over 6 roles: +0.3500 [+0.2" in done.stdout and "above 0 in 6;" in done.stdout
    assert "1 to 2" in done.stdout and "+0.5500" in done.stdout and "correlation of training lines and lead: -1.00" in done.stdout

    # what cannot be compared or correlated
    write_rolebench(tmp_path / "data", [(role, "q", ["x"]) for role in names])
    assert "all roles have 1 training line: nothing to correlate" in command("tools.scarcity", "--runs", *runs, ok=False).stderr
    write_jsonl(runs[1] / "likelihood.jsonl", read[1:])
    assert "other test lines" in command("tools.scarcity", "--runs", *runs, ok=False).stderr
