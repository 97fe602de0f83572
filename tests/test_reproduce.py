"""The studies, their tables, and a new role for a finished run."""
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, command, write_rolebench

import tools.reproduce as reproduce
import tools.results as results
from checkpoint import load_run
from data import Sample, load_rolebench
from files import write_jsonl
from selection import some_of_each
from tools import add_role, gather, likelihoods, new_role, tables
from tools.across import across, best_of_each
from tools.compare import compare, over_seeds
from tools.gather import rolegpt, short_commit
from tools.published import read_published, with_published
from tools.studies import STUDIES, Study


def test_some_of_each_are_spread_over_the_topics_of_every_role_and_split():
    """The first n of a file that goes topic by topic were one topic."""
    samples = [Sample(split, role, str(i), ("x",), "en") for split in ("general", "role_specific") for role in "abc" for i in range(60)]
    kept = some_of_each(samples, 6, seed=1)
    for key in {(s.split, s.role) for s in samples}:
        topics = [int(s.question) // 10 for s in kept if (s.split, s.role) == key]
        assert topics == [0, 1, 2, 3, 4, 5]                              # ten lines to a topic
    assert [s for s in samples if s in kept] == kept
    assert some_of_each(samples, 6, seed=1) == kept != some_of_each(samples, 6, seed=2)
    assert some_of_each(samples, 60, seed=1) == some_of_each(samples, 99, seed=1) == samples


# --------------------------------------------------------------------------------------------------------- studies
@pytest.fixture
def study(tmp_path, monkeypatch):
    """Runs a tiny study in tmp_path, tables and all; returns what it printed or why it ended."""
    for module in (results, reproduce):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setitem(reproduce.STUDIES, "tiny", Study("--config configs/tiny.json"))
    monkeypatch.chdir(ROOT)
    page = "before\n<!-- table tiny -->\nstale\n<!-- end -->\nbetween\n<!-- table tiny differences -->\n<!-- end -->\n"
    (tmp_path / "RESULTS.md").write_text(page)

    def run(*more):
        keys = "--max-steps 2 --score-limit 2 --rank 2 --language zh --batch-size 2 --max-new-tokens 4 --device cpu".split()
        monkeypatch.setattr(sys, "argv", ["reproduce", "tiny", "--out", str(tmp_path / "runs"), *more, *keys])
        try:
            reproduce.main()
        except SystemExit as e:
            return str(e)
    return run


def test_published_rows_are_not_lost(study, tmp_path):
    """A clone has the results file, but not the runs of its rows; nothing is trained before that is said."""
    path = tmp_path / "results/tiny.json"
    path.parent.mkdir()
    rows = [{"method": name, "seeds": 2} for name in ("hycora", "lora", "backbone")]
    path.write_text(json.dumps({"arguments": "", "torch": "", "across": [], "points": {"all": {"runs": {"hycora": {}, "lora": {}}, "rows": rows}}}))
    before = path.read_bytes()
    assert "would lose hycora, lora, or seeds of it" in study("--only", "ind-lora")
    assert "would lose hycora, lora, or seeds of it" in study("--only", "hycora,lora", "--seeds", "1")
    assert "would lose lora," in study("--only", "hycora", "--seeds", "2")
    assert path.read_bytes() == before and not (tmp_path / "runs").exists()


def test_what_fails_does_not_take_published_results_with_it(study, tmp_path, monkeypatch):
    """lora failed: the table of both methods would be replaced by what is left."""
    path = tmp_path / "results/tiny.json"
    path.parent.mkdir()
    rows = [{"method": name, "seeds": 2} for name in ("hycora", "lora")]
    path.write_text(json.dumps({"arguments": "", "torch": "", "across": [], "points": {"all": {"runs": {"hycora": {}, "lora": {}}, "rows": rows}}}))
    before = path.read_bytes()
    ends = iter([{}, {"all": {"hycora": [tmp_path / "1", tmp_path / "2"]}}])
    monkeypatch.setattr(reproduce, "finished", lambda jobs: next(ends))
    monkeypatch.setattr(reproduce, "train_missing", lambda *_: ["lora/1.log: out of memory"])
    message = study("--seeds", "2", "--only", "hycora,lora")
    assert "out of memory" in message and "would lose lora," in message and path.read_bytes() == before


def test_only_names_points_and_variants():
    few = Study("", ("hycora", "lora"), (1,), {"low": "", "high": ""})
    jobs = reproduce.plan(few, ROOT / "runs", [])
    assert list(reproduce.choose(jobs, few, {"lora", "high"})) == [("high", "lora")]
    assert len(reproduce.choose(jobs, few, {"lora"})) == len(reproduce.choose(jobs, few, {"high"})) == 2
    assert reproduce.choose(jobs, few, set()) == jobs


def test_points_that_are_not_run_here_stay(tmp_path):
    """A later point joins a published study, whose other runs are gone."""
    def point(name):
        return {"runs": {name: {}}, "rows": [{"method": name, "seeds": 2}]}
    def row(start, end):
        return {"from": start, "to": end}
    published = {"study": "s", "arguments": "--a", "torch": "1, 2", "points": {"low": point("old"), "high": point("old")},
                 "across": [row("low", "high"), row("low", "top")], "best": ["of three"]}
    result = published | {"torch": "2, 3", "points": {"top": point("new"), "high": point("new")}, "across": [row("high", "top")],    # not from the first
                          "best": ["of two"], "at best": "of two"}
    found = with_published(result, published, ("low", "high", "top"))
    assert list(found["points"]) == ["low", "high", "top"] and found["torch"] == "1, 2, 3" and found["across"] == found["best"] == []
    assert "at best" not in found
    whole = result | {"points": published["points"]}
    whole = with_published(whole, published, ("low", "high"))
    assert whole["best"] == ["of two"] and whole["at best"] == "of two"
    assert [of["runs"] for of in found["points"].values()] == [{"old": {}}, {"new": {}}, {"new": {}}]

    path = tmp_path / "s.json"
    path.write_text(json.dumps(published))
    top = {("top", "old"): {"1", "2"}}
    every = {(at, "old"): {"1", "2"} for at in ("low", "high", "top")}
    assert read_published(path, "--a", top) == read_published(path, "--b", every) == published and read_published(tmp_path / "t.json", "", every) is None
    with pytest.raises(ValueError, match="made with --a"):
        read_published(path, "--b", top)


class OneByOne:
    """In the place of ThreadPoolExecutor: a training in this process wants the main thread."""
    def __init__(self, jobs):
        self.map = map

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def train_here(arguments, stdout, **_):
    """In the place of subprocess.run: `python train.py ...` in this process, which has imported everything already."""
    done = command("train", *arguments[2:], ok=None)
    stdout.write(done.stdout + done.stderr)
    return done


def test_a_study_trains_what_is_missing_and_fills_the_tables(study, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "subprocess", SimpleNamespace(run=train_here))
    monkeypatch.setattr(reproduce, "ThreadPoolExecutor", OneByOne)
    assert study("--seeds", "2", "--only", "hycora,lora", "--jobs", "2") is None
    runs = [tmp_path / "runs/tiny/all" / method / seed for method in ("hycora", "lora") for seed in "12"]
    first = [(run / "scores.json").stat().st_mtime_ns for run in runs]
    result = json.loads((tmp_path / "results/tiny.json").read_text())["points"]["all"]
    assert result["rows"] == compare(runs)["rows"] and result["differences"][0]["minus"] == "hycora"
    assert {name: run["retrieval"] is None for name, run in result["runs"].items()} == {"hycora": False, "lora": True}
    assert [row["text"] for row in result["named from"][:2]] == ["hycora", "lora"] and result["named from"][0]["accuracy"]["std"] is not None
    text = (tmp_path / "RESULTS.md").read_text()
    row = next(r for r in result["rows"] if r["method"] == "lora" and r["split"] == "general")
    nats = [r["right"] for r in result["likelihood"]["rows"] if r["method"] == "lora" and r["kind"] == r["role"] == "all"]
    cells = [f"{of['mean']:.3f} ± {of['std']:.3f}" for of in nats] + [f"{row['rougeL']['mean']:.1f} ± {row['rougeL']['std']:.1f}"]
    assert f"| lora | {' | '.join(cells)} |" in text and "| lora - hycora |" in text
    assert "stale" not in text and text.startswith("before\n") and "\nbetween\n" in text

    (runs[0] / "scores.json").unlink()                     # interrupted before it was scored: scored, not trained again
    metrics = (runs[0] / "metrics.jsonl").read_text()
    assert study("--seeds", "2", "--only", "hycora,lora") is None
    assert (runs[0] / "metrics.jsonl").read_text() == metrics and (runs[0] / "scores.json").is_file()
    assert [(run / "scores.json").stat().st_mtime_ns for run in runs][1:] == first[1:]
    assert "was made with other keys" in study("--seeds", "1", "--only", "lora", "--lr", "0.1")


def test_a_study_scores_the_backbone_in_context_and_puts_likelihoods_first(study, tmp_path, monkeypatch):
    monkeypatch.setitem(reproduce.STUDIES, "tiny", Study("--config configs/tiny.json", ("lora",), shots=(2,)))
    assert study() is None
    point = json.loads((tmp_path / "results/tiny.json").read_text())["points"]["all"]
    assert next(iter(point)) == "likelihood"
    methods = [row["method"] for row in point["likelihood"]["rows"]]
    assert set(methods) == {"lora", "backbone-2-shots"} == {row["method"] for row in point["rows"]}
    table = results.score_table(point)
    assert table[0][1:3] == ["general nats", "role-specific nats"] and table[1][0] == "lora" and float(table[1][1]) > 0
    answers = tmp_path / "runs/tiny/all/lora/1/backbone-2-shots.jsonl"
    stamp = answers.stat().st_mtime_ns
    assert study() is None
    assert answers.stat().st_mtime_ns == stamp

    before = answers.read_bytes()                          # killed while it scored: the files are there, and empty
    for path in (answers, answers.with_suffix(".json")):
        path.write_bytes(b"")
    assert study() is None
    assert answers.read_bytes() == before


def test_the_backbone_reads_as_many_lines_as_the_run_did(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "read_run", lambda run: {"score_limit": 200, "likelihood_limit": 0})
    asked = []
    monkeypatch.setattr(reproduce, "subprocess", SimpleNamespace(run=lambda arguments, **_: asked.extend(arguments) or SimpleNamespace(returncode=0), DEVNULL=0, PIPE=0))
    reproduce.in_context(tmp_path, 4)
    assert asked[asked.index("--limit") + 1] == "200" and asked[asked.index("--likelihood-limit") + 1] == "50"


def test_the_backbone_of_a_run_of_one_split_is_scored_on_that_split(study, tmp_path, monkeypatch):
    """The tables of such a study failed, after all of its training."""
    monkeypatch.setitem(reproduce.STUDIES, "tiny", Study("--config configs/tiny.json --splits role_specific", ("lora",), shots=(0,)))
    assert study() is None
    point = json.loads((tmp_path / "results/tiny.json").read_text())["points"]["all"]
    assert {(row["method"], row["split"]) for row in point["rows"]} == {(name, "role_specific") for name in ("lora", "backbone-0-shots")}


def test_every_study_is_a_command_that_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "RESULTS.md").read_text("utf8")
    for name, study in reproduce.STUDIES.items():
        assert f"[{name}]" in page, name
        for of in reproduce.plan(study, ROOT / "runs", []).values():
            reproduce.parse_args(of["arguments"])


def test_a_variant_may_have_arguments_of_its_own():
    study = Study("--lr 1", ("lora", "hycora"), more={"lora": "--lr 2 --rank 4"})
    arguments = {name: of["arguments"] for (_, name), of in reproduce.plan(study, ROOT / "runs", ["--seed", "3"]).items()}
    assert reproduce.parse_args(arguments["lora"])[0]["lr"] == 2
    assert reproduce.parse_args(arguments["hycora"])[0]["lr"] == 1


@pytest.mark.parametrize(("commit", "shown"), [("0123456789abcdef" * 2 + "01234567", "0123456789ab"),
                                               ("0123456789abcdef" * 2 + "01234567-dirty", "0123456789ab-dirty"), (None, "None")])
def test_a_table_says_when_the_code_was_not_that_of_the_commit(monkeypatch, commit, shown):
    monkeypatch.setattr("tools.gather.read_run", lambda run: {"git_commit": commit})
    assert short_commit("a run") == shown


def test_rolegpt_is_scored_where_the_data_have_its_answers(tmp_path):
    shutil.copytree(ROOT / "tiny/rolebench", tmp_path, dirs_exist_ok=True)
    config = {"data": tmp_path, "language": "zh", "splits": ["general", "role_specific"], "generalization": "instruction"}
    tests = load_rolebench(tmp_path, "zh", "test", ("role_specific",))
    config["roles"] = {tests[0].role: 0}
    assert rolegpt(config) == []
    mine = [s for s in tests if s.role in config["roles"]]
    lines = [(s.role, s.question, s.answers[0]) for s in tests] + [(mine[0].role, "a question of no test", "a")]
    lines[tests.index(mine[0])] = (mine[0].role, mine[0].question, "z")                  # one wrong answer
    write_rolebench(tmp_path, lines, "zh", part="rolegpt_baseline")
    row, = rolegpt(config)
    assert row["method"] == f"RoleGPT ({len(mine)} lines)" and row["split"] == "role_specific"
    assert row["rougeL"]["mean"] == pytest.approx(100 * (len(mine) - 1) / len(mine), abs=1e-4)
    both = results.score_table({"rows": [{**row, "method": "hycora", "split": "general"}, row], "runs": {}})
    assert both[2][1] == "-" and both[2][both[0].index("role-specific ROUGE-L")] == f"{row['rougeL']['mean']:.1f}"                    # no answers in one split: a dash


def test_a_study_says_what_went_wrong(study, tmp_path):
    assert "there is no key" in study("--seeds", "1", "--lrr", "1") or "--lrr" in study("--seeds", "1", "--lrr", "1")
    for wrong in (("--seeds", "0"), ("--seeds", "-1"), ("--jobs", "0")):
        assert "have to be positive" in study(*wrong)
    assert not (tmp_path / "runs").exists()
    messages = study("--seeds", "2", "--only", "lora", "--data", str(tmp_path), "--jobs", "2").splitlines()
    assert len(messages) == 2 and all(f"lora/{n}.log" in message and "rolebench-zh" in message for n, message in enumerate(messages, 1))


def likelihoods_at(folder, roles, nats):
    """A run folder: 60 lines of each role, the i-th with `nats` + i; nats may be {role: nats}."""
    folder.mkdir(parents=True)
    of = nats if isinstance(nats, dict) else dict.fromkeys(roles, nats)
    lines = [{"split": "general", "role": role, "question": str(i), "right": of[role] + i, "wrong": [], "zero": 99.0}
             for role in roles for i in range(60)]
    write_jsonl(folder / "likelihood.jsonl", lines)
    return folder


def test_what_a_method_gains_from_one_point_to_another(tmp_path):
    """On the lines that both read: role B is at one point only. 60 lines of A gain 0.5 nats at "b", 0.25 and 0.75 with two seeds."""
    def run(name, roles, nats):
        return likelihoods_at(tmp_path / name, roles, nats)

    (tmp_path / "unread").mkdir()
    points = {"a": {"hycora": [run("1", "A", 2)], "lora": [run("2", "A", 2)], "neeko": [tmp_path / "unread"]},
              "b": {"hycora": [run("3", "AB", 1.25), run("4", "AB", 1.75)], "neeko": [run("5", "A", 1)]}}
    row, = across(points)
    assert (row["method"], row["from"], row["to"], row["n"], row["difference"]) == ("hycora", "a", "b", 60, -0.5)
    assert row["interval"] == pytest.approx((-0.75, -0.25))
    assert results.across_table([row])[1] == ["hycora: b - a", "-0.500 [-0.750, -0.250] *"]

    points = {at: {"hycora": [run(f"{at}/{seed}", "A", nats + seed) for seed in range(5)]} for at, nats in (("a", 2), ("b", 1))}
    row, = across(points)                                  # the same seeds: what each of them does to both points cancels
    assert row["difference"] == pytest.approx(-1) and row["interval"] == pytest.approx((-1, -1))
    points["b"]["hycora"].pop()                            # one of them is at the first point only: the others, in pairs
    row, = across(points)
    assert (row["difference"], *row["interval"]) == pytest.approx((-1, -1, -1))


def test_what_runs_of_two_studies_gain_on_the_lines_that_both_read(tmp_path):
    """Two pairs: A gains 0.5 nats with more roles in both seeds, then 1.5; what is one side's alone does not count."""
    for name, roles, nats in (("ten/hycora", "A", 2), ("all/hycora", "AB", 1.5), ("ten/lora", "A", 3), ("all/lora", "AB", 1.5)):
        for seed in range(2 + (name == "all/lora")):
            likelihoods_at(tmp_path / name / str(seed), roles, nats + seed)
    pairs = [arg for name in ("hycora", "lora") for arg in ("--pair", tmp_path / "ten" / name, tmp_path / "all" / name)]
    heading, first, second, _, _, more, *_ = command("tools.gains", *pairs).stdout.splitlines()
    assert first.split()[:5] == ["hycora", "general", "60", "2", "-0.500"] and "[-0.500, -0.500]" in first
    assert second.split()[4] == "-1.500" and more.split()[:5] == ["lora", "-", "hycora", "general", "-1.000"] and "right role" in heading

    likelihoods_at(tmp_path / "other/lora/7", "A", 1)
    likelihoods_at(tmp_path / "B/lora/1", "B", 1)
    for after, message in (("other/lora", "no seed is on both sides"), ("B/lora", "no test line in common"), ("ten", "no run with likelihoods")):
        refused = command("tools.gains", "--pair", tmp_path / "ten/lora", tmp_path / after, ok=False).stderr
        assert message in refused and len(refused.splitlines()) == 1


def test_the_contrastive_loss_by_epoch_and_above_its_floor(tmp_path):
    """Two seeds of two epochs; without lambda there is no loss, and old logs have no floor."""
    def run(seed, first, **more):
        lines = [{"epoch": epoch / 2, "contrastive": None if epoch < first else 1.5 + 0.1 * seed - 0.2 * epoch, "lambda": 0.3, "floor": 0.5} | more
                 for epoch in range(4)]
        (tmp_path / str(seed)).mkdir(exist_ok=True)
        write_jsonl(tmp_path / str(seed) / "metrics.jsonl", lines)
        return tmp_path / str(seed)

    both = gather.contrast_by_epoch([run(1, 0), run(3, 0)])
    assert both["1"]["loss"] == pytest.approx({"mean": 1.6, "std": 0.02 ** 0.5}) and both["2"]["loss"]["mean"] == pytest.approx(1.2)
    assert both["2"]["floor"]["mean"] == 0.5 and both["2"]["weighted"]["mean"] == pytest.approx(0.3 * 0.7)
    late = gather.contrast_by_epoch([run(1, 2)])
    assert list(late) == ["2"] and late["2"]["loss"] == pytest.approx({"mean": 1.1, "std": None}, nan_ok=True)
    assert gather.contrast_by_epoch([run(1, 9)]) == {}

    table = tables.contrast_table({"runs": {"hycora": {"contrast": late}, "early": {"contrast": both}, "lora": {"contrast": {}}, "old": {}}})
    assert table[1:] == [["hycora", "-", "1.100 (0.500)", "0.1800"], ["early", "1.600 ± 0.141 (0.500)", "1.200 ± 0.141 (0.500)", "0.2100 ± 0.0424"]]
    del both["2"]                                                        # its last epoch had none
    assert tables.contrast_table({"runs": {"hycora": {"contrast": late}, "early": {"contrast": both}}})[2][2:] == ["-", "-"]
    assert tables.contrast_table({"runs": {"lora": {"contrast": {}}}}) is None


def test_scores_of_a_whole_run_are_compared_over_the_seeds():
    """Against scipy's t-test where both sides have as many seeds; of one seed, or where no seed differs, there is no interval."""
    from scipy.stats import ttest_ind
    values = {"hycora": [1.0, 2.0, 4.0], "lora": [7.5, 6.0, 9.0], "neeko": [3.0]}
    runs = {name: {"loops": over_seeds(of), "minutes": over_seeds(of), "retrieval": None} for name, of in values.items()}
    point = {"runs": runs, "rows": [{"method": name, "seeds": len(of)} for name, of in values.items()]}
    head, *rows = tables.runs_difference_table(point)
    assert head[1:] == ["loops"] and len(rows) == 1 and "*" not in rows[0][1]
    low, high = ttest_ind(values["lora"], values["hycora"]).confidence_interval()
    found = [float(text) for text in re.findall(r"[-+][\d.]+", rows[0][1])]
    assert found[0] == pytest.approx(31 / 6, abs=0.06)
    assert found[2] - found[1] > high - low and found[2] - found[1] == pytest.approx((high - low) * 4.303 / 2.776, abs=0.15)
    assert tables.runs_difference_table({"runs": {"lora": {}}, "rows": [{"method": "lora", "seeds": 1}]}) is None
    point["named from"] = [{"text": name, "split": "general", "language": "en", "accuracy": over_seeds(of)} for name, of in values.items()]
    assert tables.voice_difference_table(point) == [[head[0], "general, en"], *rows]
    for run in runs.values():
        run["loops"] = {"mean": 1.0, "std": 0.0}
    assert tables.runs_difference_table(point) is None


def test_each_method_at_its_own_best_point(tmp_path):
    """hycora in the middle, lora at the edge."""
    nats = {"hycora": {"low": 2, "mid": 1, "high": 1.5}, "lora": {"low": 3, "mid": 1.25, "high": 0.75}}
    points = {at: {name: [likelihoods_at(tmp_path / at / name / str(seed), "A", nats[name][at] + seed) for seed in range(2)] for name in nats}
              for at in ("low", "mid", "high")}
    both = ("hycora", "lora")
    mine, other = best_of_each(points, both)
    assert (mine["method"], mine["at"], mine["edge"]) == ("hycora", "mid", False)
    assert mine["right"] == pytest.approx({"mean": 29.5 + 1.5, "std": 0.5 ** 0.5}) and (other["at"], other["edge"]) == ("high", True)
    ahead = {"difference": -0.25, "interval": (-0.5, -0.125)}
    of_splits = [{"method": "lora", "minus": "hycora", "split": split, "kind": kind, "role": "all", "n": 60, "seeds": 2, **dict.fromkeys(likelihoods.COLUMNS, ahead)}
                 for split, kind in (("general", "all"), ("general", "own"), ("role_specific", "all"))]
    at_best = {"likelihood": {"rows": [], "differences": of_splits}, "rows": [], "differences": [], "runs": {}}
    cell = "-0.250 [-0.500, -0.125] *"
    table = tables.best_table([mine, other], at_best)
    assert table[0][3:] == ["general, minus hycora at its best", "role-specific, minus hycora at its best"]
    assert table[1:] == [["hycora", "mid", "31.000 ± 0.707", "-", "-"], ["lora", "high (edge)", "30.750 ± 0.707", cell, cell]]
    assert [row["method"] for row in best_of_each(points, both[::-1])] == ["lora", "hycora"]           # the study's first, not the file's

    # a point counts if all of its runs have likelihoods; without the first variant's there is nothing to compare with
    (tmp_path / "unread").mkdir()
    points["mid"]["hycora"].append(tmp_path / "unread")
    assert best_of_each(points, both)[0]["at"] == "high"
    assert best_of_each({"a": {"hycora": [tmp_path / "unread"], "lora": points["low"]["lora"]}}, both) == []
    result = {"points": points_without_scores(), "arguments": "", "torch": ""}
    assert "Not compared" in results.tables_of("s", result)["s best"]
    texts = results.tables_of("s", result | {"best": [mine, other], "at best": at_best})
    assert cell in texts["s best"] and {"s best differences", "s best likelihood", "s best voice"} <= texts.keys()

    # points with other roles have no best one: an easy role that is at one of them only would make it the best
    points = {at: {"hycora": [likelihoods_at(tmp_path / at / "1", roles, {"A": a, "B": 0})]}
              for at, roles, a in (("few", "A", 10), ("many", "AB", 11))}
    assert best_of_each(points, both) == []


def test_the_nats_of_each_role_are_over_the_seeds_of_the_first_variant(tmp_path, monkeypatch):
    """lora lacks a seed that hycora has, and is left out; neeko has one more, which does not count."""
    monkeypatch.setattr(gather, "training_lines", lambda run: {"A": 5})
    folders = {name: [likelihoods_at(tmp_path / name / str(seed), "A", seed) for seed in seeds]
               for name, seeds in (("hycora", (1, 2)), ("lora", (1,)), ("neeko", (1, 2, 3)))}
    assert gather.by_role(folders) == {"lines": {"A": 5}, "nats": {"hycora": {"A": 29.5 + 1.5}, "neeko": {"A": 29.5 + 1.5}}}
    (folders["lora"][0] / "likelihood.jsonl").unlink()
    assert gather.by_role(folders) is None


def points_without_scores():
    """Two points of a study's results, with nothing in them."""
    return {at: {"rows": [], "differences": [], "runs": {}} for at in ("low", "high")}


def test_a_result_names_the_torch_and_the_gpu_of_its_runs(monkeypatch):
    made = {"a": {"torch": "2.13"}, "b": {"torch": "2.13", "gpu": None}, "c": {"torch": "2.11", "gpu": "H100"}}
    monkeypatch.setattr(reproduce, "read_run", made.get)
    assert reproduce.made_with({"8": {"x": ["a", "b"]}, "16": {"x": ["c"]}}) == "2.11 on H100, 2.13"


def test_the_list_of_studies_counts_finished_runs(monkeypatch):
    monkeypatch.setattr(results, "STUDIES", {"few": Study("", ("a", "b"), (1, 2), {"4": "", "8": ""}, question="who?", page="p")})
    done = {"few": {"points": {"4": {"rows": [{"method": m, "split": s, "seeds": n} for m, n in (("a", 2), ("backbone", 1)) for s in "xy"]},
                               "8": {"rows": [{"method": "b", "split": "x", "seeds": 1}]}}}}
    assert "| [few] | who? | 3 of 8 |" in results.study_table(done) and "[few]: docs/studies/p.md" in results.study_table(done)
    assert "0 of 8" in results.study_table({})
    for study in STUDIES.values():
        assert (ROOT / f"docs/studies/{study.page}.md").is_file() and study.question


def test_the_table_of_voices():
    rows = [{"split": split, "language": "en", "n": 9, "text": text, "accuracy": accuracy} for split, text, accuracy in (
        ("general", "hycora", {"mean": 90.0, "std": 1.5}), ("general", "chance", {"mean": 12.5, "std": None}),
        ("role_specific", "chance", {"mean": 10.0, "std": None}))]
    assert results.named_from_table(rows) == [["role named from", "general, en", "role-specific, en"],
                                         ["hycora", "90.0 ± 1.5", "-"], ["chance", "12.5", "10.0"]]


def test_the_tables_of_a_study_with_several_points():
    """Kinds of knowledge apart from whole splits, points as columns; "b" was not run at the second."""
    def value(nats):
        return {"mean": nats, "std": None}

    def point(methods):
        nats, scores, differences = [], [], []
        for method, n in methods.items():
            for kind in ("all", "own"):
                where = {"method": method, "split": "general", "role": "all", "kind": kind}
                nats.append(where | {"right": value(n + (kind == "own"))})
                scores.append(where | {"rougeL": value(10 * n), "fact": value(20 * n)})
                if method != "a":
                    differences.append(where | {"minus": "a", "n": 40, "right": {"difference": n - 1, "interval": [n - 1.1, n - 0.9]}})
        return {"rows": scores, "likelihood": {"rows": nats, "differences": differences}}
    points = {"8": point({"a": 1, "b": 2}), "16": point({"a": 1.5})}
    assert tables.curve_table(points) == [["method", "split", "measure", "8", "16"], ["a", "general", "nats", "1.000", "1.500"],
                                          ["b", "general", "nats", "2.000", "-"], ["a", "general", "ROUGE-L", "10.0", "15.0"],
                                          ["b", "general", "ROUGE-L", "20.0", "-"]]
    by_kind = tables.curve_table(points, by_kind=True)
    assert by_kind[0][1] == "kind" and by_kind[1:3] == [["a", "own", "nats", "2.000", "2.500"], ["b", "own", "nats", "3.000", "-"]]
    assert by_kind[3] == ["a", "own", "fact", "20.0", "30.0"]
    assert tables.difference_curve_table(points)[1:] == [["b - a", "own", "+1.000 [+0.900, +1.100] *", "-"]]
    assert len(tables.difference_curve_table({"8": {}})) == 1
    for row in [d for d in points["8"]["likelihood"]["differences"] if d["kind"] == "own"]:
        points["8"]["likelihood"]["differences"].append(row | {"kind": "town"})            # of several kinds the whole split is a row too
    assert [row[1] for row in tables.difference_curve_table(points)[1:]] == ["general", "own", "town"]


def test_the_tables_of_a_study_of_many_roles():
    """The lead of HyCoRA is 0.1 nats for the three roles with fewest lines, 0 for the others."""
    lines = {role: n for n, role in enumerate("ABCDEF", 1)}
    hycora = dict(zip("ABCDEF", (1.5, 1.0, 1.25, 1.75, 1.0, 2.0)))
    nats = {"hycora": hycora, "ind-lora": {role: hycora[role] + 0.1 * (n < 4) for role, n in lines.items()}}
    point = {"rows": [], "differences": [], "runs": {}, "by role": {"lines": lines, "nats": nats}}
    tables = results.tables_of("many", {"points": {"all": point}, "arguments": "", "torch": ""})
    assert "| 2 | 1 to 2 | +0.1000 |\n| 2 | 3 to 4 | +0.0500 |\n| 2 | 5 to 6 | +0.0000 |" in tables["many scarcity"]
    assert "above 0 in 3; rank correlation of training lines and lead: -0.8" in tables["many scarcity"]


def test_a_mark_may_name_the_methods_that_it_wants():
    table = ["| method | nats |", "| --- | --- |", "| hycora | 1 |", "| hycora w/o HCL | 2 |", "| lora - hycora | 3 |", "| lora name only - hycora | 4 |"]
    assert results.rows_of("\n".join(table), "lora, hycora") == "\n".join([*table[:3], table[4]])
    assert results.rows_of("\n".join(table), None) == "\n".join(table)
    assert results.rows_of("| a |\n| --- |\n| lora: 16 - 4 | 5 |\n| ind-lora: 16 - 4 | 5 |", "lora").endswith("--- |\n| lora: 16 - 4 | 5 |")
    with pytest.raises(ValueError, match="a mark names lorra"):
        results.rows_of("\n".join(table), "lora, lorra")


def test_the_tables_are_those_of_the_results(tmp_path, monkeypatch):
    """Nothing between the marks of a page was typed, or is older than the results."""
    pages = [page.relative_to(ROOT) for page in results.pages()]
    marks = set()
    for page in pages:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / page).read_text("utf8")
        (tmp_path / page).write_text(re.sub(r"(<!-- table [^>]*-->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.S), "utf8")
        marks |= set(re.findall(r"<!-- table (.*?) -->", text))
    monkeypatch.setattr(results, "RESULTS", ROOT / "results")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    results.fill_tables()
    for page in pages:
        assert (tmp_path / page).read_text("utf8") == (ROOT / page).read_text("utf8"), page
    assert len(pages) > 3 and {"tiny", "tiny nats"} <= marks

def test_every_interval_of_the_answers_stands_in_a_table():
    """"0.045 [0.040, 0.049]" in RESULTS.md: a page's table has it with these digits, in either direction."""
    number = r"([-+]?\d+(?:\.\d+)?)"
    shown = set()
    for page in results.pages():
        for table in re.findall(r"<!-- table [^>]*-->(.*?)<!-- end -->", page.read_text("utf8"), flags=re.S):
            for found in re.findall(rf"{number}(?: ± [\d.]+)? \[{number}, {number}\]", table):
                value, low, high = map(float, found)
                shown |= {(value, low, high), (-value, -high, -low)}

    answers = re.sub(r"<!-- table [^>]*-->.*?<!-- end -->", "", (ROOT / "RESULTS.md").read_text("utf8"), flags=re.S)
    intervals = re.findall(rf"{number}[^][\d]{{0,20}}\[{number}, {number}\]", answers)
    missing = [found for found in intervals if tuple(map(float, found)) not in shown]
    assert len(intervals) > 50 and not missing


# -------------------------------------------------------------------------------------------------------- a new role
@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs on two Chinese roles: one with a hyper-network, one without."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("hycora", "lora"):
        keys = "--max-steps 3 --score-limit 0 --rank 2 --language zh --device cpu --method".split()
        command("train", *keys, method, "--out", folder / method)
    return folder


LINES = [{"question": f"{x}是什么？", "generated": [f"哈哈，{x}便是{x}！"]} for x in "天地人水火风山海"]


def test_a_new_role_learns_and_the_others_stay(runs, tmp_path):
    write_jsonl(tmp_path / "lines.jsonl", LINES)
    keys = ["--lines", tmp_path / "lines.jsonl", "--steps", "30", "--hold", "100", "--device", "cpu"]
    done = command("tools.add_role", "--run", runs / "hycora", "--role", " 猪八戒 ", "--out", tmp_path / "new", *keys).stdout
    assert "7 lines, 30 steps" in done and "1 line held back" in done and "times as long" in done
    (old, _, before), (new, tokenizer, after) = load_run(runs / "hycora", "cpu"), load_run(tmp_path / "new", "cpu")
    assert list(after["roles"]) == [*before["roles"], "猪八戒"] and new.config.num_roles == 3
    assert after["added_role"]["role"] == "猪八戒" and after["added_role"]["steps"] == 30
    torch.testing.assert_close(new.hyper.role_embedding.weight[:2], old.hyper.role_embedding.weight, atol=0.3, rtol=0)  # no row is another
    with torch.no_grad():
        moved = new_role.drift(new, old.hyper(torch.arange(2)), torch.arange(2))
        ids = torch.tensor([tokenizer.prompt("你是谁？")])
        assert 0 < moved < 1e-2 and not torch.equal(new(ids, torch.tensor([2])), new(ids, torch.tensor([0])))
    done = command("train", "--resume", tmp_path / "new", ok=False)
    assert "is about 3 roles and tiny/rolebench about 2" in done.stderr
    for name, p in new.trainable().items():
        if name.endswith(".B"):
            assert torch.equal(p, old.trainable()[name])   # what all share is not touched


def test_the_step_with_the_likeliest_held_out_lines_is_kept(runs, monkeypatch):
    monkeypatch.setattr(new_role, "SETTLE", 0)
    samples = [Sample("added", "new", line["question"], tuple(line["generated"]), "zh") for line in LINES]
    model, tokenizer, config = load_run(runs / "hycora", "cpu")
    nats = iter([3.0, 1.0, 2.0])
    seen = []

    def measure(model, *_):
        seen.append({name: p.clone() for name, p in model.hyper.state_dict().items()})
        return torch.tensor([next(nats)]), None

    monkeypatch.setattr(new_role, "reference_nll", measure)
    best = new_role.Best(samples[:1], 2)
    new_role.add_role(model, tokenizer, config, "new", samples[1:], steps=6, best=best)
    assert (best.step, best.nats) == (4, 1.0)
    assert all(torch.equal(p, seen[1][name]) for name, p in model.hyper.state_dict().items())
    assert any(not torch.equal(p, seen[2][name]) for name, p in model.hyper.state_dict().items())


def test_the_last_step_is_kept_on_request(runs, tmp_path, monkeypatch, capsys):
    write_jsonl(tmp_path / "lines.jsonl", LINES)
    monkeypatch.setattr(new_role.Best, "look", lambda *_: pytest.fail("no step is looked for"))
    keys = ["--lines", tmp_path / "lines.jsonl", "--steps", "3", "--keep", "last", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["add_role", "--run", str(runs / "hycora"), "--role", "new", "--out", str(tmp_path / "new"), *map(str, keys)])
    add_role.main()
    assert "as new at step 3, which is kept" in capsys.readouterr().out
    assert json.loads((tmp_path / "new/config.json").read_text("utf8"))["added_role"]["keep"] == "last"


def test_its_loss_falls_and_a_firmer_hold_moves_the_others_less(runs, monkeypatch):
    monkeypatch.setattr(new_role, "SETTLE", 0)
    samples = [Sample("added", "new", line["question"], tuple(line["generated"]), "zh") for line in LINES]
    moved = {}
    for hold in (0.0, 1000.0):
        model, tokenizer, config = load_run(runs / "hycora", "cpu")
        torch.nn.init.normal_(model.adapted["down_proj"][0].B, std=0.05)                   # three steps leave B near zero
        _, losses, moved[hold] = new_role.add_role(model, tokenizer, config, "new", samples, steps=40, hold=hold)
        assert losses[-1] < losses[0]
    assert moved[1000.0] < 0.1 * moved[0.0]


def test_two_added_roles_start_far_from_each_other(runs):
    model, *_ = load_run(runs / "hycora", "cpu")
    for _ in range(2):
        new_role.add_embedding(model, seed=1)
    e_c = model.hyper.role_embedding.weight.detach()
    assert len(e_c) == 4 and torch.cdist(e_c, e_c).add(100 * torch.eye(4)).min() > 0.5 * torch.cdist(e_c[:2], e_c[:2]).max()


def test_settling_brings_the_others_back_and_leaves_the_new_role(runs):
    model, *_ = load_run(runs / "hycora", "cpu")
    roles = torch.arange(3)
    with torch.no_grad():
        before = model.hyper(roles[:2])
        new_role.add_embedding(model, seed=1)
        for p in model.hyper.parameters():
            p.add_(0.1 * p.std(correction=0) * torch.randn_like(p))
        moved = new_role.drift(model, before, roles[:2])
        learnt = model.hyper(roles)
    new_role.settle(model, before, 60)
    with torch.no_grad():
        assert new_role.drift(model, before, roles[:2]) < 0.1 * moved
        assert new_role.drift(model, learnt, roles[2:]) < 0.1 * moved


@pytest.mark.parametrize("change, message", [
    ({"--run": "lora"}, "lora has no hyper-network"), ({"--role": " "}, "--role is empty"), ({"--lines": "/dev/null"}, "has no line"),
    ({"--role": "孙悟空"}, "has a role '孙悟空' already"),
    ({"--lines": "broken"}, "broken:1: not JSON"), ({"--steps": "0"}, "have to be positive"), ({"--lines": "gone"}, "gone")])
def test_add_role_refuses_in_one_line(runs, tmp_path, change, message):
    write_jsonl(tmp_path / "lines", LINES[:1])
    (tmp_path / "broken").write_text("{no\n")
    given = {"--run": "hycora", "--role": "new", "--lines": "lines", "--steps": "1"} | change
    given |= {"--run": runs / given["--run"], "--lines": tmp_path / given["--lines"], "--out": tmp_path / "out", "--device": "cpu"}
    done = command("tools.add_role", *(x for pair in given.items() for x in pair), ok=False)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
