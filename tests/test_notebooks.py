"""Every notebook runs from top to bottom, and is stored without outputs."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_PER_CELL = 300  # the longest notebook takes two minutes on two idle cores; a test machine may be shared

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs all cells in a new kernel of this interpreter, in `folder`; an error in a cell is raised."""
    client = NotebookClient(
        notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return client.execute(env={**os.environ, "PYTHONPATH": path})


def stored_outputs(notebook: nbformat.NotebookNode) -> list[int]:
    """Indices of the cells that carry outputs or execution counts."""
    cells = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    return [index for index, cell in cells if cell.outputs or cell.execution_count is not None]


@pytest.mark.slow
@each_notebook
def test_notebook_runs(path, tmp_path):
    execute(nbformat.read(path, as_version=4), tmp_path)


@each_notebook
def test_notebook_is_stored_without_outputs(path):
    assert stored_outputs(nbformat.read(path, as_version=4)) == []


@pytest.mark.slow
def test_a_failing_cell_and_its_outputs_are_found(tmp_path):
    cells = [nbformat.v4.new_code_cell(code) for code in ("print(1)", "import sdelab", "raise ValueError('wrong')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert stored_outputs(notebook) == []
    with pytest.raises(CellExecutionError, match="wrong"):
        execute(notebook, tmp_path)
    assert stored_outputs(notebook) == [0, 1, 2]
