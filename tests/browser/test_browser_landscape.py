"""The landscape viewer in JupyterLab: it fills in, pauses, and shows what the kernel has."""

import json
import time

import pytest
from panels import judge
from playwright.sync_api import expect

CUT = "Array.from(gd.data[2].y)"
DOTS = "Array.from(gd.data[8].x ?? []).length"
COARSE_MS = 4000
FORGET = """
from lox_kit.store import MemoryStore as _Memory
_state._cells.clear(), _state._marks.clear()
_state.store = _Memory()
_state.show()
"""
FILL = """([panel, plot]) => new Promise((resolve) => {
    const gd = document.querySelector(panel + ' ' + plot);
    const look = () => (gd.data[8].x?.length ?? 0) < 25
        ? requestAnimationFrame(look)
        : requestAnimationFrame(() => resolve(performance.now() - start));
    const start = performance.now();
    document.querySelector(panel + ' button.lox-run').click();
    look();
})"""


@pytest.fixture
def panel(panels):
    """The viewer with its coarse landscape measured and nothing running."""
    panel = panels["landscape"]
    panel.click(".lox-reset")
    panel.wait_shown("gd.data[1].z.length", 17)
    run_coarse(panel)
    return panel


def choose(panel, side):
    """Choose a resolution and wait for its figure."""
    panel.find(".lox-finer select").select_option(f"{side} x {side}")
    panel.wait_shown("gd.data[1].z.length", side)


def run_coarse(panel):
    """Measure 5 x 5 cells, unless they are; return when nothing runs any more."""
    choose(panel, 5)
    if not panel.state("state.landscape.complete"):
        panel.click(".lox-run")
    end = time.monotonic() + 60
    while not panel.state("state.landscape.complete and state.job.wait(0)"):
        assert time.monotonic() < end
        time.sleep(0.1)
    panel.wait_job("done")


@pytest.mark.quick
def test_surface_map_and_models_show_what_the_kernel_measured(panel):
    values = panel.state("state.data['values']")
    drawn = [list(row) for row in zip(*values, strict=True)]  # rows along b
    for place in (0, 1):
        panel.wait_shown(f"gd.data[{place}].z.map((r) => Array.from(r))", drawn)
    names = panel.find(".annotation-text").all_text_contents()
    assert names == ["aligned", "LoX", "attacked", "attacked LoX"]
    assert panel.shown("gd.data.slice(11).map((t) => t.x.length)") == [17] * 4
    said = panel.shown("gd.data[1].customdata[2][1]")
    assert said.endswith(panel.state("state.data['example']['answers'][1][2]"))


def test_keys_on_the_sliders_move_the_cut_as_they_move_the_kernel(panel):
    before = panel.shown(CUT)
    i, j = panel.state("state.data['here']['index']")
    a, b = panel.state(f"state.grid.at(({i + 2}, {j + 1}))")
    panel.press(".lox-at-a", "ArrowRight", times=2)
    panel.press(".lox-at-b", "ArrowRight")
    expect(panel.find(".lox-here")).to_contain_text(f"At ({a:.2f}, {b:.2f})")
    assert panel.state("[state.a, state.b]") == pytest.approx([a, b])
    assert panel.readout(".lox-at-a") == f"{a:.2f}"
    after = panel.state("state.data['cut']['value']")
    assert after != before
    panel.wait_shown(CUT, after)
    panel.find(".lox-cut select").select_option("along a")
    panel.wait_shown(CUT, [values[j + 1] for values in panel.state("state.data['values']")])


def test_pointing_at_a_cell_of_the_map_marks_it_on_the_surface_and_shows_its_answer(panel):
    box = panel.find(".subplot.xy").first.bounding_box()
    # the fourth of five columns, the second of five rows from the top
    cell = box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3
    panel.page.mouse.move(*cell)
    a, b = panel.state("list(state.grid.at((3, 3)))")
    expect(panel.find(".lox-here")).to_contain_text(f"At ({a:.2f}, {b:.2f})")
    panel.wait_shown("Array.from(gd.data[6].x)", [a])
    assert panel.shown("Array.from(gd.data[6].y)") == [b]
    answer = panel.state("state.data['here']['answer']")
    assert panel.find(".lox-here .lox-answer").inner_text().strip() == answer.strip()
    expect(panel.find(".hoverlayer .hovertext")).to_contain_text(f"({a:.2f}, {b:.2f})")
    panel.page.mouse.click(*cell)
    expect(panel.find(".lox-at-a .widget-readout")).to_have_text(f"{a:.2f}")
    panel.page.mouse.move(1, 1)


def test_class_use_leaves_the_answers_out_of_the_page(panel):
    answers = panel.find(".lox-answer")
    expect(answers).to_have_count(1)
    said = answers.inner_text().strip()
    panel.click(".lox-classroom")
    expect(answers).to_have_count(0)
    panel.wait_shown("gd.layout.font.size", 18)
    assert said not in json.dumps(panel.shown("gd.data[1].customdata"))
    panel.click(".lox-classroom")
    expect(answers).to_have_count(1)


def test_the_first_coarse_landscape_comes_within_the_time_promised(panel, record):
    choose(panel, 17)
    times = []
    for _ in range(5):
        panel.execute(FORGET)
        panel.wait_shown(DOTS, 0)
        times.append(panel.page.evaluate(FILL, [panel.css, panel.plot]))
        panel.enter(".lox-cancel")
        panel.wait_job("cancelled")
    judge(times, COARSE_MS, "landscape", record)
