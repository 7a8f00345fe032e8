"""A notebook's own plotly figure, in pages and kernels that were never open before."""

import nbformat
import pytest
from checkpoints import ROOT
from lab import Lab, Watched

DATA = ROOT / "figures" / "landscape_map_arithmetic_0.json"
FIGURE = f"""
import json
from pathlib import Path
from lox_kit.figures.plotly import landscape as turn_and_hover
turn_and_hover(json.loads(Path({str(DATA)!r}).read_text()))
"""
RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
DRAWN = """() => {
    const gd = document.querySelector('.jp-OutputArea-output .js-plotly-plot');
    return gd?.data?.length > 0 && gd.querySelector('.heatmaplayer image') !== null;
}"""
END = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()"


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A server of notebooks whose only cell draws what 05 turns and hovers over."""
    lab = Lab(tmp_path_factory.mktemp("cold"))
    notebook = nbformat.read(ROOT / "notebooks" / "05_landscape.ipynb", as_version=4)
    notebook.cells = [nbformat.v4.new_code_cell(FIGURE.strip())]
    for i in range(10):
        nbformat.write(notebook, lab.folder / "notebooks" / f"{i}.ipynb")
    with lab.running():
        yield lab


@pytest.mark.parametrize("i", range(10))
def test_the_figure_is_drawn_however_cold_the_page(cold, browser, i):
    watched = Watched(browser)  # with a cache of its own
    watched.open(cold, f"{i}.ipynb")
    watched.page.evaluate(RUN)
    watched.page.wait_for_function(DRAWN, timeout=120_000)
    assert watched.errors == []
    watched.page.evaluate(END)
    watched.page.close()
