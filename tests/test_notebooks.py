"""Every notebook runs from top to bottom, has small cells, and carries the outputs that GitHub shows."""
import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(len(cell.source.splitlines()) <= 16 for cell in code) and sum("assert" in cell.source for cell in code) >= len(code) // 2
    assert sum(bool(cell.outputs) for cell in code) >= 0.7 * len(code) and str(ROOT) not in path.read_text("utf8")
    assert all(out.output_type != "error" for cell in code for out in cell.outputs)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
