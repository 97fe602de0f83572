"""Every notebook is a lesson, with small cells and the outputs that GitHub shows; it runs from top to bottom, and its exercises accept their
own solutions."""
import re

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROSE = 8                               # words of text to a line of code, at least


def read(path):
    return pytest.importorskip("nbformat").read(path, as_version=4)


def sources(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_and_outputs(path):
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(len(cell.source.splitlines()) <= 16 for cell in code) and sum("assert" in cell.source for cell in code) >= len(code) // 2
    assert sum(bool(cell.outputs) for cell in code) >= 0.7 * len(code) and str(ROOT) not in path.read_text("utf8")
    assert all(out.output_type != "error" for cell in code for out in cell.outputs)
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_a_lesson(path):
    notebook = read(path)
    markdown = sources(notebook, "markdown")
    text = "\n".join(markdown)
    for mark in ("**Question.**", "**After this**", "**Time:**", "**Before:**"):
        assert mark in markdown[0], f"the first cell lacks {mark}"
    for mark, least in (("**Predict, then run.**", 3), ("<summary>Answer", 3), ("## Exercise", 2), ("## Recap", 1), ("**Next:**", 1)):
        assert text.count(mark) >= least, f"{text.count(mark)} times {mark}"

    words = len(re.sub(r"```.*?```|<[^>]+>", " ", text, flags=re.S).split())
    lines = sum(bool(line.strip()) for source in sources(notebook, "code") for line in source.splitlines())
    assert words >= PROSE * lines, f"{words} words to {lines} lines of code"
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / link).exists(), f"there is no {link}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_and_its_solutions_are_right(path):
    """Each exercise is a cell with a blank, a cell that judges, and a text with the solution, which here fills the blank."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = read(path)
    exercises = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and "# your turn" in cell.source]
    for i in reversed(exercises):
        solution = re.search(r"```python\n(.*?)```", notebook.cells[i + 2].source, re.S)[1]
        notebook.cells.insert(i + 1, nbformat.v4.new_code_cell(solution))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()

    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    for n in range(1, len(exercises) + 1):
        assert f"exercise {n}: right" in printed
    assert "not tried yet" not in printed
