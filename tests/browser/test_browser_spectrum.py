"""The spectrum explorer in JupyterLab: what the page shows is what the kernel has."""

import json
import re

import pytest
from lab import evaluate
from panels import judge
from playwright.sync_api import expect

MAP = "gd.data[0].z"
LINE = "gd.layout.shapes[1].x0"  # the dashed line at k
SPECTRUM_MS = 150


@pytest.fixture
def panel(panels):
    """The explorer as it opened."""
    panel = panels["spectrum"]
    panel.click(".lox-reset")
    panel.wait_shown(LINE, 6)
    return panel


def energies(kernel, k):
    """Return the map of energies as the subspace has them."""
    code = f"energy_map_data(subspace, {k})['energy']"
    found = evaluate(kernel, f"__import__('lox_kit').{code}")
    return {name: value for name, value in found.items() if ".layers." in name}


@pytest.mark.quick
@pytest.mark.parametrize(("key", "k"), [("ArrowRight", 9), ("ArrowLeft", 3), ("ArrowUp", 9)])
def test_keys_on_the_slider_change_the_plot_as_they_change_the_kernel(panel, kernel, key, k):
    panel.press(".lox-k", key, times=3)
    panel.wait_shown(LINE, k)
    assert evaluate(kernel, "setting.k") == k
    assert panel.readout(".lox-k") == str(k)
    drawn, names = panel.shown(MAP), panel.shown("gd.data[0].customdata")
    expected = energies(kernel, k)
    assert {n: z for row, zs in zip(names, drawn) for n, z in zip(row, zs)} == expected  # noqa: B905
    assert f"k = {k}: median" in panel.find(".annotation-text").all_text_contents()[-1]


def test_a_click_on_a_cell_and_the_list_choose_the_same_matrix(panel):
    box = panel.find(".subplot.xy").first.bounding_box()
    # the second of seven columns, the third of four rows
    panel.page.mouse.click(box["x"] + box["width"] * 1.5 / 7, box["y"] + box["height"] * 2.5 / 4)
    panel.wait_shown("gd.layout.shapes[2].x0", 0.5)
    assert panel.shown("gd.layout.shapes[2].y0") == 1.5
    label = panel.find(".lox-matrix select")
    chosen = label.evaluate("list => list.selectedOptions[0].text")
    assert chosen.replace("\xa0", " ") == "layer 2 · k_proj"
    label.select_option("lm_head")
    panel.wait_shown("gd.layout.shapes[2].xref", "x2")


def test_enter_opens_the_code_which_follows_the_slider_and_leaves_the_cell_alone(panel):
    state = "() => window.jupyterapp.shell.currentWidget.content.mode"
    code = panel.find(".lox-code textarea")
    panel.find("button.lox-code").focus()
    panel.page.keyboard.press("Enter")
    expect(code).to_be_visible()
    assert "= explorer_data(" in code.input_value()
    assert panel.page.evaluate(state) == "command"
    panel.press(".lox-k", "ArrowRight")
    expect(code).to_have_value(re.compile(r"k=7,"))
    panel.enter(".lox-code")
    expect(code).to_be_hidden()


def test_save_figure_writes_the_twin_and_says_where(panel, lab):
    panel.click(".lox-save-figure")
    expect(panel.find(".lox-message")).to_contain_text("explorer-all-k6", timeout=30_000)
    data = json.loads((lab.folder / "notebooks/figures/explorer-all-k6.json").read_text())
    assert panel.shown(MAP)[0][0] in data["energy"].values()


def test_the_spectrum_follows_the_slider_within_the_time_promised(panel, panels, record):
    times = []
    for _ in range(15):
        panels["dial"].wait_job("done")  # the dial follows the same slider
        times.append(panel.times(".lox-k", "panel.querySelector('.annotation-text').textContent"))
    judge(times, SPECTRUM_MS, "spectrum", record)
