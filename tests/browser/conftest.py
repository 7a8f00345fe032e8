"""One JupyterLab, one page with the tour run in it, for all browser tests."""

import os

import nbformat
import pytest
from checkpoints import ROOT
from chromium import executable
from lab import FLAGS, Lab, Watched
from panels import PANELS, Panel
from playwright.sync_api import sync_playwright

END = "the tour has ended"


def pytest_collection_modifyitems(items):
    """Mark what needs a browser, and as slow what is not quick; how it looks comes last."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker(pytest.mark.browser)
            if not item.get_closest_marker("quick"):
                item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name == "test_browser_looks.py")


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A running server with the tour, and a cell after it that says when it has ended."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    notebook = nbformat.read(ROOT / "notebooks" / "00_start.ipynb", as_version=4)
    words = END.split()
    notebook.cells.append(nbformat.v4.new_code_cell(f"print(*{words})"))
    nbformat.write(notebook, lab.folder / "notebooks" / "tour.ipynb")
    with lab.running():
        yield lab


@pytest.fixture(scope="session")
def browser():
    """Chromium or Chrome, headless."""
    path = executable()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def tour(lab, browser):
    """The page with the tour run to its end, tall enough for a whole panel."""
    watched = Watched(browser, 1280, 1500)
    watched.open(lab, "tour.ipynb")
    watched.run(END)
    page = watched.page
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    for figure, _ in PANELS.values():
        page.wait_for_selector(f"{figure} .main-svg", timeout=180_000)
    return watched


@pytest.fixture(scope="session")
def kernel(lab, tour):
    """A client of the tour's kernel."""
    client = lab.kernel()
    yield client
    client.stop_channels()


@pytest.fixture(scope="session")
def panels(tour, kernel):
    """The five panels of the tour, by name."""
    return {name: Panel(tour.page, kernel, *parts) for name, parts in PANELS.items()}


@pytest.fixture(scope="session")
def record():
    """The folder for screenshots and times that are to be kept, or None: LOX_KIT_RECORD=1."""
    if not os.environ.get("LOX_KIT_RECORD"):
        return None
    folder = ROOT / "figures" / "panels"
    folder.mkdir(exist_ok=True)
    return folder
