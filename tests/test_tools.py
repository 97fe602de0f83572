"""The tools: what they count, write and print."""
from console import render_table

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, command, randomise, write_rolebench
from safetensors.torch import save_file
from test_layer import hyper_model

from config import Config, resolve
from data import Sample
from files import write_jsonl
from generate import Decoding, generate
from hycora_layer import METHODS, AdapterConfig
from metrics import METRICS, mean_scores
from model import ModelConfig, Transformer
from tokenizer import Tokenizer
from tools.compare import compare, difference, paper_table, tables
from tools.likelihoods import file_beside
from tools.params import count
from tools.results import kind_table, score_table
from tools.tables import parts
from tools.tsne import matrices, silhouettes
from tools.turns import conversations_of, converse, table_of

LLAMA2 = dict(model_type="llama", vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
              num_attention_heads=32)
QWEN2 = dict(model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
             num_attention_heads=28, num_key_value_heads=4)
CHATGLM2 = dict(model_type="chatglm", padded_vocab_size=65024, hidden_size=4096, ffn_hidden_size=13696, num_layers=28,
                num_attention_heads=32, multi_query_attention=True, multi_query_group_num=2, kv_channels=128, seq_length=32768,
                layernorm_epsilon=1e-5, add_qkv_bias=True)
# the paper's backbones: adapted linears, hycora exactly, then lora, ind-lora, neeko, rsp-a-rsp-b, mrs-a-rsp-b in millions
PAPER = [(CHATGLM2, 5, dict(head_rank=28), 112, 16_830_448, (14.82, 74.12, 74.69, 17.21, 16.94)),
         (QWEN2, 5, dict(head_rank=28), 196, 22_296_132, (20.19, 100.93, 101.93, 22.79, 22.37)),
         (LLAMA2, 95, dict(role_dim=128, layer_dim=64, hidden_dim=256), 224, 21_212_640, (19.99, 1898.91, 1920.70, 21.61, 21.27)),
         (LLAMA2, 95, dict(role_dim=256, layer_dim=128, hidden_dim=728), 224, 24_012_328, (19.99, 1898.91, 1920.70, 24.52, 24.07))]


@pytest.mark.parametrize("config, roles, dims, linears, hycora, others", PAPER)
def test_the_papers_parameter_counts(config, roles, dims, linears, hycora, others):
    counts = {m: count(ModelConfig.from_hf(config), AdapterConfig(method=m, num_roles=roles, **dims)) for m in METHODS}
    assert counts["hycora"] == (hycora, linears)
    got = [round(counts[m][0] / 1e6, 2) for m in ("lora", "ind-lora", "neeko", "rsp-a-rsp-b", "mrs-a-rsp-b")]
    assert got == pytest.approx(others, abs=0.011)


def test_the_formulas_of_the_docstring():
    R, r, k, d_c, d_l, d_h, N, C = 7, 4, 3, 6, 5, 16, 2, 48
    shapes = [(48, 48), (48, 16), (48, 16), (48, 48), (48, 80), (48, 80), (80, 48)]
    n, L = 3, 21
    config = ModelConfig.from_hf(dict(model_type="qwen2", vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=n,
                                      num_attention_heads=6, num_key_value_heads=2))
    lora = sum(n * r * (i + o) for i, o in shapes)
    E = R * d_c + L * d_l + 2 * (d_c + d_l) + (d_c + d_l + 1) * d_h + N * (2 * (d_h + 1) * d_h + 2 * d_h) + 2 * d_h
    P = (d_c + 1) * d_c + (C + 1) * d_c
    head_a, head_b = ([k * (d_h + 1) + (k + 1) * r * s[j] for s in shapes] for j in (0, 1))
    expected = {"lora": lora, "ind-lora": R * lora, "neeko": R * lora + L * R * 1024,
                "hycora": E + sum(head_a) + sum(n * r * o for _, o in shapes) + P, "rsp-a-rsp-b": E + sum(head_a + head_b) + P,
                "mrs-a-rsp-b": E + sum(head_b) + sum(n * r * i for i, _ in shapes) + P,
                "ind-a-mrs-b": sum(n * r * (R * i + o) for i, o in shapes)}
    dims = dict(num_roles=R, rank=r, head_rank=k, role_dim=d_c, layer_dim=d_l, hidden_dim=d_h, num_blocks=N)
    assert {m: count(config, AdapterConfig(method=m, **dims))[0] for m in METHODS} == expected


def test_params_prints_a_line_for_each_method(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA2))
    done = command("tools.params", "--model", tmp_path, "--roles", "95", "--layer-dim", "64", "--hidden-dim", "256")
    assert "224 adapted linears" in done.stdout and "21,212,640" in done.stdout and len(done.stdout.splitlines()) == 1 + len(METHODS)
    bad = command("tools.params", "--model", "nowhere", "--roles", "5", ok=False)
    assert "no such folder" in bad.stderr and len(bad.stderr.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------- compare
def fake_run(root, method, scores, backbone=None, **changes):
    """A scored run folder; scores: {(split, role, question): a number that every metric has}."""
    root.mkdir()
    config = vars(resolve(Config(method=method, device="cpu", **changes))) | {"profiles": {}}
    (root / "config.json").write_text(json.dumps(config))
    (root / "roles.json").write_text('{"A": 0, "孙悟空": 1}')
    write_jsonl(root / "metrics.jsonl", [{"step": i, "tokens_per_s": speed} for i, speed in enumerate((1, 300, 310))])
    save_file({"x.A": torch.zeros(3, 5), "x.B": torch.zeros(7)}, root / "adapter.safetensors")
    for name, values in (("predictions", scores), ("predictions_backbone", backbone or {})):
        lines = [{"split": s, "role": r, "question": q, "references": ["x"], "answer": "y"} | dict.fromkeys(METRICS, v)
                 for (s, r, q), v in values.items()]
        if lines:
            write_jsonl(root / f"{name}.jsonl", lines)
    return root


ITEMS = [(split, role, str(q)) for split in ("general", "role_specific") for role in ("A", "孙悟空") for q in range(40)]


def test_compare_averages_seeds_and_pairs_items(tmp_path):
    rng = np.random.default_rng(torch.randint(1000, ()).item())
    lora = dict(zip(ITEMS, rng.uniform(0, 100, len(ITEMS))))
    better = [{k: v + d for k, v in lora.items()} for d in (4, 6)]
    noisy = {k: v + rng.normal(0, 30) for k, v in lora.items()}
    runs = [fake_run(tmp_path / "lora", "lora", lora, backbone=noisy)]
    runs += [fake_run(tmp_path / f"hycora{i}", "hycora", dict(reversed(b.items())), seed=i) for i, b in enumerate(better)]
    runs += [fake_run(tmp_path / "wo", "hycora", noisy, lambda_max=0)]
    result = compare(runs, per_role=True)
    assert list(dict.fromkeys(r["method"] for r in result["rows"])) == ["lora", "hycora", "hycora w/o HCL", "backbone"]
    rows = {(r["method"], r["split"], r["role"]): r for r in result["rows"]}
    assert len(rows) == 4 * 2 * 3
    row, base = rows["hycora", "general", "孙悟空"], rows["lora", "general", "孙悟空"]
    assert row["rougeL"]["mean"] == pytest.approx(base["rougeL"]["mean"] + 5) and row["n"] == 40 and row["seeds"] == 2
    assert row["rougeL"]["std"] == pytest.approx(2 ** 0.5) and base["rougeL"]["std"] is row["fact"] is None
    assert (row["trainable"], row["tokens_per_s"], rows["backbone", "general", "all"]["trainable"]) == (22, 300, None)
    d = {(d["method"], d["split"], d["role"]): d["bleu4"] for d in result["differences"]}
    assert d["hycora", "general", "all"]["interval"] == pytest.approx([4, 6])       # paired: the items' own spread is gone, the seeds' is not
    delta = np.array([noisy[k] - lora[k] for k in ITEMS[:80]])
    low, high = d["hycora w/o HCL", "general", "all"]["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * delta.std() / 80 ** 0.5, rel=0.15)
    assert (high + low) / 2 == pytest.approx(delta.mean(), abs=1.5)
    printed = {form: command("tools.compare", "--runs", *runs, "--format", form).stdout for form in ("text", "markdown", "json")}
    three = command("tools.compare", "--runs", *runs, "--table", "3", "--format", "markdown").stdout.splitlines()
    assert three[0] == "| Methods | Datasets | A | 孙悟空 |" and f"| hycora | general | {rows['hycora', 'general', 'A']['rougeL']['mean']:.2f} | {row['rougeL']['mean']:.2f} |" in three
    one, five = (paper_table(result, number) for number in (1, 5))
    assert len(one) == 5 and len(one[0]) == 9 and one[2][8] == f"{rows['hycora', 'role_specific', 'all']['rougeL']['mean']:.2f}"
    assert len(five) == 9 and five[1][:2] == ["lora", "general"] and five[1][3] == f"{rows['lora', 'general', 'all']['rougeL']['mean']:.2f}"
    assert "+5.00 [+4.00, +6.00] *" in printed["text"] and "| hycora | general | all | 80 | 2 |" in printed["markdown"]
    assert json.loads(printed["json"]) == json.loads(json.dumps(compare(runs)))


def test_compare_pairs_runs_of_the_same_seeds_in_any_order(tmp_path):
    """Seeds differ by 10 points, on both sides alike: the interval of the difference shows nothing of it."""
    paths = []
    for method, more, seeds in (("lora", 0, (1, 2, 3)), ("hycora", 2, (3, 1, 2))):
        for seed in seeds:
            paths.append(fake_run(tmp_path / f"{method}{seed}", method, {item: 10.0 * seed + more for item in ITEMS}, seed=seed))
    result = compare(paths)
    assert all(d["rougeL"]["interval"] == pytest.approx((2, 2)) for d in result["differences"]) and len(result["differences"]) == 2
    some = compare(paths[:-1])["differences"]                            # without one of them: the seeds that both have
    assert all((d["rougeL"]["difference"], *d["rougeL"]["interval"]) == pytest.approx((2, 2, 2)) for d in some)

    apart = [*paths[:2], paths[3]]                                       # no seed in common: all of both, and no pairs
    low, high = compare(apart)["differences"][0]["rougeL"]["interval"]
    assert high - low > 5


def test_compare_counts_facts_and_keeps_kinds_apart(tmp_path):
    """Facts are measured where there are any: here on one split, in two kinds."""
    paths = []
    for name, right in (("a", (100, 0)), ("b", (100, 100))):
        lines = [{"split": "general", "role": "A", "question": "1", "references": ["x"], "answer": "y"} | dict.fromkeys(METRICS, 1.0)]
        for kind, fact in zip(("own", "town"), right):
            lines.append(lines[0] | {"split": "role_specific", "question": kind, "kind": kind, "facts": ["z"], "fact": fact})
        paths.append(tmp_path / f"{name}.jsonl")
        write_jsonl(paths[-1], lines)
    result = compare(paths)
    rows = {(r["method"], r["split"], r["kind"]): r for r in result["rows"]}
    facts = {(split, kind): row["fact"] and row["fact"]["mean"] for (method, split, kind), row in rows.items() if method == "a"}
    assert facts == {("general", "all"): None, ("role_specific", "all"): 50, ("role_specific", "own"): 100, ("role_specific", "town"): 0}
    (town,) = [d for d in result["differences"] if d["kind"] == "town"]
    assert town["fact"] == {"difference": 100, "interval": [100, 100]} and town["rougeL"]["difference"] == 0

    scores, differences = tables(result)
    assert "kind" in scores[0] and "fact" in scores[0] and "+50.00" in render_table(differences)
    assert "*" not in render_table(differences)                          # of two items an interval is too sure of itself
    point = {"rows": result["rows"], "differences": result["differences"], "runs": {}}
    assert kind_table(point) == [["right facts, percent", "own", "town"], ["a", "100.0", "0.0"], ["b", "100.0", "100.0"]]
    assert score_table(point)[0][2:5] == ["general BLEU-4", "general fact", "role-specific ROUGE-L"]
    assert len(score_table(point)) == 3 and len(paper_table(result, 1)) == 3


def test_a_split_without_kinds_stands_beside_the_kinds_of_another():
    rows = [{"split": split, "kind": kind} for split, kind in (("general", "all"), ("role_specific", "all"), ("role_specific", "own"))]
    assert parts(rows) == {"general": ("general", "all"), "own": ("role_specific", "own")}


def test_a_difference_is_over_the_items_that_both_sides_have():
    nan = float("nan")
    values, others = np.array([[1.0, 2.0, nan]]), np.array([[0.0, nan, 5.0]])
    assert difference(values, others) == {"difference": 1.0, "interval": [1.0, 1.0]} and difference(values[:, 2:], others[:, 2:]) is None


def test_compare_refuses_what_cannot_be_compared(tmp_path):
    a = fake_run(tmp_path / "a", "lora", dict.fromkeys(ITEMS, 1.0))
    b = fake_run(tmp_path / "b", "hycora", dict.fromkeys(ITEMS[3:], 1.0))
    c = fake_run(tmp_path / "c", "hycora", {})
    for runs, message in (([a, b], "157 test lines and .* 160, 157 of them the same"), ([a, c], "has no predictions.jsonl"), ([a, tmp_path], "not a run")):
        with pytest.raises((ValueError, OSError), match=message):
            compare(runs)


def test_only_runs_that_differ_in_nothing_but_the_seed_are_one_row(tmp_path):
    scores = dict.fromkeys(ITEMS, 1.0)
    runs = [fake_run(tmp_path / name, "hycora", scores, **changes) for name, changes in
            (("a", dict(seed=1)), ("b", dict(seed=2)), ("c", dict(seed=1, rank=4)), ("d", dict(seed=1)))]
    made = compare(runs[:3])["provenance"]
    assert list(made) == [f"hycora ({runs[0]})", f"hycora ({runs[2]})"] and len(made[f"hycora ({runs[0]})"]) == 2
    with pytest.raises(ValueError, match="is given twice"):
        compare([runs[0], runs[3]])
    files = [run / "predictions.jsonl" for run in runs[:2]]
    assert [r["seeds"] for r in compare(files)["rows"]] == [1, 1, 1, 1]
    (tmp_path / "e.jsonl").write_text('{"split": "general", "role": "A", "question": "q", "references": [], "answer": "x"}\n')
    with pytest.raises(ValueError, match="e.jsonl:1"):
        compare([tmp_path / "e.jsonl"])


def write_likelihoods(path, right, wrong=1.0, zero=0.5):
    """A likelihood.jsonl: {(split, role, question): nats as the right role}; the others are so much worse."""
    lines = [{"split": s, "role": r, "question": q, "right": v, "wrong": [v + wrong, v + 2 * wrong], "zero": v + zero}
             for (s, r, q), v in right.items()]
    write_jsonl(path, lines)


def test_likelihoods_come_first_and_may_be_of_more_lines(tmp_path):
    more = ITEMS + [("general", "A", f"more {q}") for q in range(7)]
    rng = np.random.default_rng(torch.randint(1000, ()).item())
    base = dict(zip(more, rng.uniform(2, 4, len(more))))
    runs = [fake_run(tmp_path / name, method, dict.fromkeys(ITEMS, 1.0), seed=seed)
            for name, method, seed in (("a", "lora", 3), ("b", "hycora", 1), ("c", "hycora", 2))]      # no seed in common
    for run, shift in zip(runs, (0, 0.3, 0.1)):
        write_likelihoods(run / "likelihood.jsonl", {item: value - shift for item, value in reversed(base.items())}, zero=0.5 + shift)
    result = compare(runs, per_role=True)
    rows = {(r["method"], r["split"], r["role"]): r for r in result["likelihood"]["rows"]}
    row, lora = rows["hycora", "general", "A"], rows["lora", "general", "A"]
    assert (row["n"], row["seeds"]) == (47, 2) and row["right"]["mean"] == pytest.approx(lora["right"]["mean"] - 0.2)
    assert row["right"]["std"] == pytest.approx(0.2 / 2 ** 0.5) and lora["right"]["std"] is None
    assert row["wrong - right"]["mean"] == pytest.approx(1.5) and row["role accuracy"]["mean"] == 100
    found, *_ = [d for d in result["likelihood"]["differences"] if d["role"] == "all"]
    assert found["right"]["difference"] == pytest.approx(-0.2) and found["right"]["interval"] == pytest.approx([-0.3, -0.1])
    assert found["zero - right"]["interval"] == pytest.approx([0.1, 0.3])

    first, second, *_ = tables(result)
    assert first[0][0] == "nats per token" and "-0.200 [-0.300, -0.100] *" in second[1]
    write_likelihoods(runs[0] / "likelihood.jsonl", dict.fromkeys(ITEMS[1:], 2.0))
    with pytest.raises(ValueError, match="of other test lines"):
        compare(runs)
    for bad, message in (("{}", "'right' is missing"), ('{"right": 1, "wrong": 2, "zero": 1}', "likelihood.jsonl:1"),
                         ('{"right": 1, "wrong": ["x"], "zero": 1}', "is 'x'"), ('{"right": -1, "wrong": [], "zero": 1}', "is -1")):
        (runs[0] / "likelihood.jsonl").write_text(bad + "\n")
        with pytest.raises(ValueError, match=message):
            compare(runs)


def test_likelihoods_are_compared_on_the_seeds_that_both_have(tmp_path):
    """Seeds differ by a nat, on both sides alike: of the difference that shows nothing."""
    paths = []
    for method, more, seeds in (("lora", 0.0, (2, 1, 3)), ("hycora", 0.5, (3, 4, 1))):
        for seed in seeds:
            paths.append(fake_run(tmp_path / f"{method}{seed}", method, dict.fromkeys(ITEMS, 1.0), seed=seed))
            write_likelihoods(paths[-1] / "likelihood.jsonl", dict.fromkeys(ITEMS, seed + more))
    for d in compare(paths)["likelihood"]["differences"]:
        assert (d["right"]["difference"], *d["right"]["interval"]) == pytest.approx((0.5, 0.5, 0.5)) and d["seeds"] == 2


def test_intervals_by_question_are_wider_where_roles_are_asked_the_same(tmp_path):
    """Twelve questions to four roles: what a run gains depends on the question alone, so that lines are not independent."""
    items = [("general", role, f"q{n}") for n in range(12) for role in "ABCD"]
    for name, gain in (("lora", 0), ("hycora", 1)):
        run = fake_run(tmp_path / name, name, {item: 50.0 + gain * int(item[2][1:]) for item in items}, seed=1)
        write_jsonl(run / "likelihood.jsonl", [{"split": s, "role": r, "question": q, "right": 2 - gain * int(q[1:]) / 10, "wrong": [], "zero": 9.0}
                                               for s, r, q in items])
    found = {}
    for by_question in (False, True):
        result = compare([tmp_path / "lora", tmp_path / "hycora"], by_question=by_question)
        for measure, (row,) in (("rougeL", result["differences"]), ("right", result["likelihood"]["differences"])):
            low, high = row[measure]["interval"]
            found[by_question, measure] = high - low
    for measure in ("rougeL", "right"):
        assert 1.5 < found[True, measure] / found[False, measure] < 2.5                          # four equal lines to a question
    assert "differences" in command("tools.compare", "--by-question", "--format", "json", "--runs", tmp_path / "lora").stdout


def test_seeds_of_two_machines_are_one_row(tmp_path):
    for seed, gpu in ((1, None), (2, "H100")):
        run = fake_run(tmp_path / str(seed), "hycora", dict.fromkeys(ITEMS, 1.0), seed=seed)
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"gpu": gpu}))
    assert [row["seeds"] for row in compare([tmp_path / "1", tmp_path / "2"])["rows"]] == [2, 2]


def test_files_of_answers_have_their_likelihoods_beside_them(tmp_path):
    names = {"predictions_backbone.jsonl": "likelihood_backbone.jsonl", "predictions.jsonl": "likelihood.jsonl", "x.jsonl": "x.likelihood.jsonl"}
    assert {name: file_beside(tmp_path / name).name for name in names} == names


# ------------------------------------------------------------------------------------------------------- check_data
def check_data(*args):
    return command("tools.check_data", *args, ok=None)


def test_check_data_counts_leaks_duplicates_and_broken_lines(tmp_path):
    train = write_rolebench(tmp_path, [("A", "q1", ["x", "y"]), ("A", "q1", ["y"]), ("B", "q2", ["z"]), ("B", "q3", ["z"])])
    write_rolebench(tmp_path, [("A", "q1", ["y", "new"]), ("B", "q2", ["other"]), ("A", "q3", ["x"]), ("A", "q9", ["x"]), ("C", "q8", ["x"])], part="test")
    done = check_data(tmp_path, "--tokenizer", "tiny/backbone")
    assert done.returncode == 0 and done.stdout.startswith("--- en")
    assert "role_specific train: 4 lines, 3 questions, 5 answers, 2 roles" in done.stdout
    assert "1 lines repeat a role and question, 1 answers repeat" in done.stdout
    assert "1 of 5 with role, question and an answer in train, 1 more with role and question, 1 more with the question under" in done.stdout
    assert "tokens (5 % and 95 %)" in done.stdout and "no description" in done.stdout
    train.write_bytes(train.read_bytes() + b'{"role": "A"\n\n{"role": "A", "question": "q", "generated": [" "]}\n\xff\n')
    done = check_data(tmp_path)
    assert done.returncode == 1 and "3 broken lines" in done.stderr
    assert [f"train.jsonl:{n}: {what}" in done.stdout for n, what in ((5, "not JSON"), (7, "empty answer"), (8, "not JSON"))] == [True] * 3


def test_check_data_finds_nothing_wrong_with_the_tiny_world_and_nothing_at_all_elsewhere(tmp_path):
    done = check_data("tiny/rolebench")
    assert done.returncode == 0 and done.stdout.count("leaks: 0 of") == 4
    for where in (tmp_path, "nowhere/here"):
        done = check_data(where)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------------------------------ turns
def test_every_question_stands_once_at_every_turn_after_the_roles_own_answers():
    samples = [Sample("general", role, f"{role}{i}", ("yes",), "en", ("yes",)) for role in "AB" for i in range(7)]
    conversations = conversations_of(samples, turns=3, questions=7)
    assert len(conversations) == 2 * 2 * 3 and all(len({s.role for s in c}) == 1 for c in conversations)
    asked = [[c[turn].question for c in conversations] for turn in range(3)]
    assert all(sorted(questions) == sorted(asked[0]) and len(set(questions)) == 12 for questions in asked)
    with pytest.raises(ValueError, match="fewer --turns"):
        conversations_of(samples, turns=9, questions=9)

    model = randomise(hyper_model("hycora", Transformer.from_pretrained(ROOT / "tiny/backbone"), num_roles=2), 0.02)
    config = {"method": "hycora", "out": "r", "data": "d", "language": "en", "seed": 0, "roles": {"A": 0, "B": 1}, "profiles": {},
              "role_in_prompt": False, "max_length": 256}
    tokenizer = Tokenizer(ROOT / "tiny/backbone")
    first, second, _ = converse(model, tokenizer, config, conversations[:3], Decoding(4))
    question, history = conversations[0][1].question, [(conversations[0][0].question, first[0]["answer"])]
    ids = generate(model, [tokenizer.prompt(question, None, history)], [0], tokenizer.stop_ids, Decoding(4))[0]
    assert second[0]["question"] == question and second[0]["answer"] == tokenizer.decode(ids)
    rows = table_of([mean_scores(lines) for lines in (first, second)])
    assert rows[0][2:5] == ["rougeL", "95 %", "since turn 1"] and rows[1][4] == "+0.0" and len(rows) == 3


def test_turns_of_the_finished_run(tmp_path):
    """Two turns of sixteen conversations: the table, the file, and what is refused."""
    shutil.copytree(ROOT / "tiny/run", tmp_path / "run")
    done = command("tools.turns", "--run", tmp_path / "run", "--turns", "2", "--questions", "2", "--device", "cpu")
    turns = json.loads((tmp_path / "run/turns.json").read_text())["turns"]
    assert [turn["n"] for turn in turns] == [16, 16] and all(turn["rougeL"] > 40 for turn in turns) and "since turn 1" in done.stdout
    assert "at least as many" in command("tools.turns", "--run", tmp_path / "run", "--turns", "3", "--questions", "2", ok=False).stderr


# ------------------------------------------------------------------------------------------------------------- tsne
@pytest.mark.parametrize("method", METHODS)
def test_tsne_takes_what_the_linears_really_use(method):
    model = randomise(hyper_model(method), 0.1)
    found = matrices(model, "v_proj")
    differing = {factor for factor, source in model.sources.items() if source != "shared"}
    assert set(found) == differing - ({"B"} if method == "neeko" else set())               # neeko's B: all blocks for all
    for factor, m in found.items():
        assert m.shape[:2] == (4, 3)
        for role in range(4):
            with model.active_roles(torch.tensor([role, role])):
                for layer, linear in enumerate(model.adapted["v_proj"]):
                    expected = linear.lora_weights["AB".index(factor)].detach().flatten()
                    torch.testing.assert_close(torch.tensor(m[role, layer]), expected, rtol=1e-4, atol=1e-5)


def test_silhouettes_tell_roles_from_layers():
    pytest.importorskip("sklearn")
    role, layer = torch.randn(5, 1, 40), torch.randn(1, 6, 40)
    near = silhouettes((5 * role + layer + 0.1 * torch.randn(5, 6, 40)).numpy())
    far = silhouettes((role + 5 * layer + 0.1 * torch.randn(5, 6, 40)).numpy())
    assert near["role"] > 0.5 > 0 > near["layer"] and far["layer"] > 0.5 > 0 > far["role"]
    assert near["role within a layer"] > 0.8 and far["role within a layer"] > 0.8      # the layer's part is gone


def test_tsne_draws_a_run(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    args = ["--role-subset", "3", "--max-steps", "1", "--score-limit", "0", "--rank", "2", "--language", "zh", "--out", tmp_path / "r"]
    command("train", *args)
    done = command("tools.tsne", "--run", tmp_path / "r")
    assert "q_proj A: 2 roles x 4 layers; silhouette by role" in done.stdout and (tmp_path / "r/tsne.png").stat().st_size > 10000
    bad = command("tools.tsne", "--run", tmp_path / "r", "--kind", "qq", ok=False)
    assert "choose q_proj" in bad.stderr and len(bad.stderr.splitlines()) == 1


@pytest.mark.parametrize("n, star", [(6, ""), (30, " *")])
def test_few_items_make_no_clear_difference(n, star):
    from tools.compare import tables
    where = {"split": "own", "role": "all", "kind": "all"}
    found = {metric: {"difference": 2.0, "interval": [1.0, 3.0]} for metric in METRICS}
    row = {"method": "a", "n": n, "seeds": 1, "trainable": None, "tokens_per_s": None, "fact": None, **where}
    _, differences = tables({"rows": [row | dict.fromkeys(METRICS, {"mean": 1.0, "std": None})],
                             "differences": [{"method": "a", "minus": "b", "n": n, **where, **found}]})
    assert differences[1][-1] == f"+2.00 [+1.00, +3.00]{star}"
