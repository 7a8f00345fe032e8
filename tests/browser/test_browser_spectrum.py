"""The spectrum explorer in JupyterLab: what the page shows is what the kernel has."""

import json
import re

import pytest
from lab import evaluate
from panels import SPECTRUM, TIMED, click, judge, press, readout, shown, wait_job, wait_shown
from playwright.sync_api import expect

PLOT = ".lox-explorer"
MAP = "gd.data[0].z"
LINE = "gd.layout.shapes[1].x0"  # the dashed line at k
SPECTRUM_MS = 150


@pytest.fixture
def page(tour):
    """The page, both panels as they opened."""
    click(tour.page, SPECTRUM, ".lox-reset")
    wait_shown(tour.page, SPECTRUM, PLOT, LINE, 6)
    return tour.page


def energies(kernel, k):
    """Return the map of energies as the subspace has them."""
    code = f"energy_map_data(subspace, {k})['energy']"
    found = evaluate(kernel, f"__import__('lox_kit').{code}")
    return {name: value for name, value in found.items() if ".layers." in name}


@pytest.mark.quick
@pytest.mark.parametrize(("key", "k"), [("ArrowRight", 9), ("ArrowLeft", 3), ("ArrowUp", 9)])
def test_keys_on_the_slider_change_the_plot_as_they_change_the_kernel(page, kernel, key, k):
    press(page, SPECTRUM, ".lox-k", key, times=3)
    wait_shown(page, SPECTRUM, PLOT, LINE, k)
    assert evaluate(kernel, "setting.k") == k
    assert readout(page, SPECTRUM, ".lox-k") == str(k)
    drawn = shown(page, SPECTRUM, PLOT, MAP)
    names = shown(page, SPECTRUM, PLOT, "gd.data[0].customdata")
    expected = energies(kernel, k)
    assert {n: z for row, zs in zip(names, drawn) for n, z in zip(row, zs)} == expected  # noqa: B905
    assert (
        f"k = {k}: median" in page.locator(f"{SPECTRUM} .annotation-text").all_text_contents()[-1]
    )


def test_a_click_on_a_cell_and_the_list_choose_the_same_matrix(page, kernel):
    box = page.locator(f"{SPECTRUM} .subplot.xy").first.bounding_box()
    # the second of seven columns, the third of four rows
    page.mouse.click(box["x"] + box["width"] * 1.5 / 7, box["y"] + box["height"] * 2.5 / 4)
    wait_shown(page, SPECTRUM, PLOT, "gd.layout.shapes[2].x0", 0.5)
    assert shown(page, SPECTRUM, PLOT, "gd.layout.shapes[2].y0") == 1.5
    label = page.locator(f"{SPECTRUM} .lox-matrix select")
    chosen = label.evaluate("list => list.selectedOptions[0].text")
    assert chosen.replace("\xa0", " ") == "layer 2 · k_proj"
    label.select_option("lm_head")
    wait_shown(page, SPECTRUM, PLOT, "gd.layout.shapes[2].xref", "x2")


def test_the_views_show_as_many_matrices_as_they_say(page):
    for view, count in (("its layer", 7), ("its kind", 4), ("this matrix", 1), ("all", 30)):
        page.locator(f"{SPECTRUM} .lox-view button", has_text=view).press("Enter")
        gaps = "gd.data.slice(6).flatMap((t) => t.visible === false ? [] : Array.from(t.text))"
        wait_shown(page, SPECTRUM, PLOT, f"new Set({gaps}).size", count)


def test_enter_on_a_button_presses_it_and_leaves_the_cell_alone(page):
    state = "() => window.jupyterapp.shell.currentWidget.content.mode"
    code = page.locator(f"{SPECTRUM} .lox-code textarea")
    page.locator(f"{SPECTRUM} button.lox-code").focus()
    page.keyboard.press("Enter")
    expect(code).to_be_visible()
    assert "= explorer_data(" in code.input_value()
    assert page.evaluate(state) == "command"
    page.keyboard.press("Enter")
    expect(code).to_be_hidden()


def test_the_code_follows_the_slider_while_it_is_open(page):
    click(page, SPECTRUM, ".lox-code")
    press(page, SPECTRUM, ".lox-k", "ArrowRight")
    expect(page.locator(f"{SPECTRUM} .lox-code textarea")).to_have_value(re.compile(r"k=7,"))
    click(page, SPECTRUM, ".lox-code")


def test_save_figure_writes_the_twin_and_says_where(page, lab):
    click(page, SPECTRUM, ".lox-save-figure")
    expect(page.locator(f"{SPECTRUM} .lox-message")).to_contain_text("Saved")
    data = json.loads((lab.folder / "notebooks/figures/explorer-all-k6.json").read_text())
    assert shown(page, SPECTRUM, PLOT, MAP)[0][0] in data["energy"].values()


def test_class_use_enlarges_type_and_is_shared(page):
    size = "gd.layout.font.size"
    before = shown(page, SPECTRUM, PLOT, size)
    click(page, SPECTRUM, ".lox-classroom")
    wait_shown(page, SPECTRUM, PLOT, size, 18)
    every = page.locator(".lox-panel").count()
    expect(page.locator(".lox-panel.lox-class")).to_have_count(every)
    click(page, SPECTRUM, ".lox-classroom")
    wait_shown(page, SPECTRUM, PLOT, size, before)


def test_the_spectrum_follows_the_slider_within_the_time_promised(page, record):
    arguments = [SPECTRUM, ".lox-k", PLOT, "panel.querySelector('.annotation-text').textContent"]
    times = []
    for _ in range(15):
        wait_job(page, "done")  # the dial follows the same slider
        times.append(page.evaluate(TIMED, arguments))
    judge(times, SPECTRUM_MS, "spectrum", record)
