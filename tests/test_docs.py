"""docs/: pages that are made from the source are current, links lead somewhere."""
import contextlib
import functools
import math
import re
import sys
from xml.etree import ElementTree

import pytest
import torch
from conftest import ROOT

import train
from arguments import read_config
from checkpoint import digest, load_run
from data import load_test_samples
from hycora_layer import METHODS, AdapterConfig, HyperModel
from likelihood import reference_nll
from model import ModelConfig, Transformer
from tools import curves, figures, paper, params, plots, similarity

PAGES = sorted([ROOT / "README.md", ROOT / "RESULTS.md", *(ROOT / "docs").rglob("*.md")])


def test_the_page_of_the_paper_is_what_the_source_makes_of_it():
    assert paper.PAGE.read_text("utf8") == paper.make_page(), "stale: python -m tools.paper"


def test_the_shapes_on_the_page_are_those_of_the_model():
    """Every weight in a table of shapes, beside a LLaMA-2-7B built without memory."""
    sizes = {name: read_config(params.AUTHORS)[name] for name in params.SIZES}
    with torch.device("meta"):
        backbone = Transformer(ModelConfig.from_hf(params.LLAMA2_7B))
        model = HyperModel(backbone, AdapterConfig(num_roles=95, **sizes))
    shapes = {}
    for name, p in model.trainable().items():
        if "down_proj" not in name:                                      # the one kind whose widths are others
            shapes.setdefault(".".join(name.split(".")[-2:]), set()).add(" × ".join(map(str, p.shape)))

    page = paper.PAGE.read_text("utf8").replace(paper.NO_BREAK, " ")
    rows = re.findall(r"^\| `(\w+\.weight)` \| `[^`]+` \| ([\d,× ]+) \|", page, re.M)
    assert len(rows) >= 7
    for name, shape in rows:
        assert shape.replace(",", "") in shapes[name], name


@pytest.mark.parametrize("mark, message", [
    ("{{code Eq. 9}}", "no line carries"), ("{{code losses.nothing}}", "losses.py: there is no nothing"), ("{{code nowhere.f}}", "no nowhere.py"),
    ("{{test test_losses test_nothing}}", "no test_nothing"), ("{{notebook 01 No such heading}}", "no section"),
    ("{{notebook 77 x}}", "no notebook 77"), ("{{= d_x + 1}}", "d_x"), ("{{nonsense 1}}", "nonsense")])
def test_a_mark_that_names_nothing_is_an_error(mark, message, monkeypatch, tmp_path):
    template = tmp_path / "paper.md"
    template.write_text(f"text {mark} text", "utf8")
    monkeypatch.setattr(paper, "TEMPLATE", template)
    with pytest.raises(ValueError, match=message):
        paper.make_page()


def test_code_is_cut_without_docstrings_and_with_its_decorators():
    text = paper.code("hycora_layer.HyperModel.active_roles")
    assert "```python\n@contextmanager\ndef active_roles" in text and '"""' not in text
    assert paper.code("Eq. 2").count("# Eq. 2") == paper.code("Eq. 2 class").count("# Eq. 2") == 1


def anchors(text):
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    text = page.read_text("utf8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)):
        if re.match(r"\w+://", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text("utf8")), f"{page.name}: {target}"


# -------------------------------------------------------------------------------------------------------- figures
@pytest.mark.parametrize("draw", figures.DRAWS)
def test_the_figures_are_what_the_tool_draws(draw):
    path = figures.FOLDER / f"{draw.__name__.replace('_', '-')}.svg"
    assert path.read_text("utf8") == str(draw()), "stale: python -m tools.figures"
    ElementTree.parse(path)


def test_the_similarities_are_those_of_the_run_that_the_repository_carries():
    text = (figures.FOLDER / "similarity.svg").read_text("utf8")
    assert digest(ROOT / "tiny/run/adapter.safetensors") in text, "stale: python -m tools.figures --run tiny/run"


def test_every_text_of_a_figure_is_inside_it():
    """By an estimate of widths that is generous for any common font."""
    for path in figures.FOLDER.glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            content = "".join(text.itertext()).replace("\u200b", "")
            width = 0.62 * float(text.get("font-size")) * len(content)
            x = float(text.get("x"))
            left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor")]
            assert left > -2 and left + width < float(root.get("width")) + 2, f"{path.name}: {content}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step on the two Chinese roles, scored on two lines of each split."""
    folder = tmp_path_factory.mktemp("runs") / "hycora"
    with contextlib.chdir(ROOT):
        train.run_training([*"--max-steps 1 --score-limit 2 --max-new-tokens 4 --rank 2 --language zh --device cpu --out".split(),
                            str(folder)])
    return folder


def test_similarities_are_cosines_of_role_and_response(run, monkeypatch):
    monkeypatch.chdir(ROOT)
    model, tokenizer, config = load_run(run, "cpu")
    samples = load_test_samples(config["data"], "zh", limit=6, roles=config["roles"])
    voices = [s.role for s in samples]
    found = similarity.similarities(model, tokenizer, config, samples, voices)

    _, e_t = reference_nll(model, tokenizer, config, samples)
    for i in range(2):
        for name, j in config["roles"].items():
            z_t = model.projections.W_t(e_t[[n for n, s in enumerate(samples) if s.role == name]])
            z_r = model.projections.W_r(model.hyper.role_embedding.weight[i])
            expected = torch.nn.functional.cosine_similarity(z_r[None], z_t).mean()
            torch.testing.assert_close(found[i, j], expected.detach())


def test_the_command_draws_a_run(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(similarity, "load_test_samples", functools.partial(load_test_samples, limit=4))
    monkeypatch.setattr(sys, "argv", ["figures", "--run", str(run), "--out", str(tmp_path)])
    figures.main()
    assert "few-lines, similarity" in capsys.readouterr().out
    assert "read as another role" in (tmp_path / "similarity.svg").read_text("utf8")

    monkeypatch.setattr(sys, "argv", ["figures", "--run", "nowhere", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        figures.main()
    assert "nowhere" in str(end.value)


def test_voice_and_fact_of_a_study():
    names = [*METHODS, "hycora w/o HCL", "backbone"]
    rows = [{"method": name, "split": split, "kind": "all", "seeds": 1 + 2 * (n == 0),
             "rougeL": {"mean": 50.0 + n, "std": 1.25 if n == 0 else None},
             "fact": {"mean": 90.0 - 10 * n, "std": 0.5 if n == 0 else None}} for split in ("general", "role_specific") for n, name in enumerate(names)]
    svg = str(plots.voice_and_fact({"rows": [*rows, rows[0] | {"method": "RoleGPT", "fact": None}]}))
    assert "RoleGPT" not in svg
    assert all(f">{name}</text>" in svg for name in names)
    assert svg.count("<circle") == 4 * len(names) + 2
    assert svg.count(">50.0 ± 1.2<") == svg.count(">51.0<") == 2 and "mean ± deviation of 1 to 3 seeds" in svg

    # and the study that the repository carries
    drawn = str(plots.voice_and_fact(figures.points_of("tiny")["all"]))
    assert (figures.FOLDER / "voice-and-fact.svg").read_text("utf8") == drawn, "python -m tools.figures"


def test_the_curves_of_a_study():
    def point(nats):
        return {"likelihood": {"rows": [{"method": method, "split": "general", "kind": "all", "role": "all", "right": {"mean": mean, "std": std}}
                                        for method, (mean, std) in nats.items()]}}
    points = {"8": point({"hycora": (2.0, 0.5), "lora": (1.0, None)}), "16": point({"hycora": (3.0, None), "lora": (3.01, None), "neeko": (1.5, None)})}
    lines = curves.lines_of(points, "general", "all")
    assert lines == {"hycora": {0: (2.0, 0.5), 1: (3.0, None)}, "lora": {0: (1.0, None), 1: (3.01, None)}, "neeko": {1: (1.5, None)}}
    low, high = curves.limits(lines)
    assert low < 1 and high > 3.01 and curves.ticks(low, high) == {math.log(n): f"{n:g}" for n in (1, 1.5, 2, 3)}
    assert curves.ends(2.0, 0.5) == (1.5, 2.5) and curves.ends(2.0, None) == (2.0, 2.0) and curves.ends(2.0, 1.9) == (1.0, 3.9)
    assert [*curves.ticks(0.13, 5.3).values()] == ["0.2", "0.5", "1", "2", "5"] and [*curves.ticks(0.1551, 0.165).values()] == ["0.156", "0.158", "0.16", "0.162", "0.164"]
    assert curves.spread({"a": 10, "b": 12, "c": 100}) == {"a": 5, "b": 22, "c": 95}
    cut = curves.below({"lora": {0: (1.0, None), 1: (3.0, 0.1)}, "hycora": {0: (2.0, None)}}, 2.0)
    assert cut == {"lora ↑": {0: (1.0, None)}, "hycora": {0: (2.0, None)}}
    svg = str(curves.curves(points, [("general", "all")], "rank"))
    assert svg.count("<circle") == 5 and all(f">{text}</text>" in svg for text in (*lines, "8", "16", "rank", "general: nats"))

    # and the studies that the repository carries
    for name, about in figures.CURVES.items():
        drawn = str(curves.curves(figures.points_of(name), *about))
        assert (figures.FOLDER / f"{name}.svg").read_text("utf8") == drawn, "python -m tools.figures"
