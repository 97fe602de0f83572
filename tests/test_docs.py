"""docs/: pages that are made from the source are current, links lead somewhere."""
import re

import pytest
import torch
from conftest import ROOT

from config import read_config
from hycora_layer import AdapterConfig, HyperModel
from model import ModelConfig, Transformer
from tools import paper

PAGES = sorted([ROOT / "README.md", ROOT / "RESULTS.md", *(ROOT / "docs").glob("*.md")])


def test_the_page_of_the_paper_is_what_the_source_makes_of_it():
    assert paper.PAGE.read_text("utf8") == paper.make_page(), "stale: python -m tools.paper"


def test_the_shapes_on_the_page_are_those_of_the_model():
    """Every weight in a table of shapes, beside a LLaMA-2-7B built without memory."""
    sizes = {name: read_config(paper.AUTHORS)[name] for name in paper.SIZES}
    with torch.device("meta"):
        backbone = Transformer(ModelConfig.from_hf(paper.LLAMA2_7B))
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
    ("{{code Eq. 9}}", "no line carries"), ("{{code losses.nothing}}", "has no losses.nothing"), ("{{code nowhere.f}}", "no nowhere.py"),
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
