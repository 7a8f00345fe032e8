"""The landscape viewer in JupyterLab: it fills in, pauses, and shows what the kernel has."""

import json
import re
import time

import pytest
from lab import evaluate, state_of
from panels import VIEWER, click, judge, press, readout, shown, wait_job, wait_shown
from playwright.sync_api import expect

PLOT = ".lox-viewer"
STATE = state_of("LandscapeState")
CUT = "Array.from(gd.data[2].y)"
DOTS = "Array.from(gd.data[8].x ?? []).length"
COARSE_MS = 4000
FORGET = f"""
from lox_kit.store import MemoryStore as _Memory
_state = {STATE}
_state._cells.clear(), _state._marks.clear()
_state.store = _Memory()
_state._show()
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
def page(tour, kernel):
    """The page, the viewer with its coarse landscape measured and nothing running."""
    page = tour.page
    click(page, VIEWER, ".lox-reset")
    wait_shown(page, VIEWER, PLOT, "gd.data[1].z.length", 17)
    run_coarse(page, kernel)
    return page


def choose(page, side):
    """Choose a resolution and wait for its figure."""
    page.locator(f"{VIEWER} .lox-finer select").select_option(f"{side} x {side}")
    wait_shown(page, VIEWER, PLOT, "gd.data[1].z.length", side)


def run_coarse(page, kernel):
    """Measure 5 x 5 cells, unless they are; return when nothing runs any more."""
    choose(page, 5)
    if not evaluate(kernel, f"{STATE}.landscape.complete"):
        click(page, VIEWER, ".lox-run")
    end = time.monotonic() + 60
    while not evaluate(kernel, f"{STATE}.landscape.complete and {STATE}.job.wait(0)"):
        assert time.monotonic() < end
        time.sleep(0.1)
    wait_job(page, "done", VIEWER)


def measured(kernel):
    return evaluate(kernel, f"{STATE}.data['measured'][0]")


@pytest.mark.quick
def test_surface_map_and_models_show_what_the_kernel_measured(page, kernel):
    values = evaluate(kernel, f"{STATE}.data['values']")
    drawn = [list(row) for row in zip(*values, strict=True)]  # rows along b
    for place in (0, 1):
        wait_shown(page, VIEWER, PLOT, f"gd.data[{place}].z.map((r) => Array.from(r))", drawn)
    names = page.locator(f"{VIEWER} .annotation-text").all_text_contents()
    assert names == ["aligned", "LoX", "attacked", "attacked LoX"]
    assert shown(page, VIEWER, PLOT, "gd.data.slice(11).map((t) => t.x.length)") == [17] * 4
    said = shown(page, VIEWER, PLOT, "gd.data[1].customdata[2][1]")
    cell = evaluate(kernel, f"{STATE}.data['example']['answers'][1][2]")
    assert said.endswith(cell)


def test_keys_on_the_sliders_move_the_cut_as_they_move_the_kernel(page, kernel):
    before = shown(page, VIEWER, PLOT, CUT)
    i, j = evaluate(kernel, f"{STATE}.data['here']['index']")
    a, b = evaluate(kernel, f"{STATE}.grid.at(({i + 2}, {j + 1}))")
    press(page, VIEWER, ".lox-at-a", "ArrowRight", times=2)
    press(page, VIEWER, ".lox-at-b", "ArrowRight")
    expect(page.locator(f"{VIEWER} .lox-here")).to_contain_text(f"At ({a:.2f}, {b:.2f})")
    assert evaluate(kernel, f"[{STATE}.a, {STATE}.b]") == pytest.approx([a, b])
    assert readout(page, VIEWER, ".lox-at-a") == f"{a:.2f}"
    after = evaluate(kernel, f"{STATE}.data['cut']['value']")
    assert after != before
    wait_shown(page, VIEWER, PLOT, CUT, after)
    page.locator(f"{VIEWER} .lox-cut select").select_option("along a")
    row = [values[j + 1] for values in evaluate(kernel, f"{STATE}.data['values']")]
    wait_shown(page, VIEWER, PLOT, CUT, row)


def test_a_cut_goes_from_one_model_to_another(page, kernel):
    choice = page.locator(f"{VIEWER} .lox-cut select")
    choice.select_option("aligned → attacked")
    wait_shown(page, VIEWER, PLOT, "gd.layout.xaxis2.title.text",
               "distance from aligned towards attacked")  # fmt: skip
    ends = evaluate(kernel, f"[list({STATE}.plane.points[n].at) for n in ('aligned', 'attacked')]")
    cut = evaluate(kernel, f"{STATE}.data['cut']")
    assert all(end in cut["at"] for end in ends)
    for i, name in enumerate("xy"):
        drawn = shown(page, VIEWER, PLOT, f"Array.from(gd.data[3].{name})")
        assert drawn == pytest.approx([at[i] for at in cut["at"]])
    assert shown(page, VIEWER, PLOT, CUT) == pytest.approx(cut["value"], abs=1e-6)
    expect(page.locator(f"{VIEWER} .lox-cliffs tbody tr").first).to_contain_text(
        "aligned → attacked"
    )
    choice.select_option("along b")
    wait_shown(page, VIEWER, PLOT, "gd.layout.xaxis2.title.text.includes('along b')", True)


def test_pointing_at_a_cell_of_the_map_marks_it_on_the_surface_and_shows_its_answer(page, kernel):
    box = page.locator(f"{VIEWER} .subplot.xy").first.bounding_box()
    # the fourth of five columns, the second of five rows from the top
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3)
    a, b = evaluate(kernel, f"list({STATE}.grid.at((3, 3)))")
    expect(page.locator(f"{VIEWER} .lox-here")).to_contain_text(f"At ({a:.2f}, {b:.2f})")
    wait_shown(page, VIEWER, PLOT, "Array.from(gd.data[6].x)", [a])
    assert shown(page, VIEWER, PLOT, "Array.from(gd.data[6].y)") == [b]
    answer = evaluate(kernel, f"{STATE}.data['here']['answer']")
    said = page.locator(f"{VIEWER} .lox-here .lox-answer")
    assert said.inner_text().strip() == answer.strip()
    hover = page.locator(f"{VIEWER} .hoverlayer .hovertext")
    expect(hover).to_contain_text(f"({a:.2f}, {b:.2f})")
    page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3)
    expect(page.locator(f"{VIEWER} .lox-at-a .widget-readout")).to_have_text(f"{a:.2f}")
    page.mouse.move(1, 1)


def test_run_pause_resume_and_cancel_work_and_run_goes_on(page, kernel):
    kernel.execute_interactive(FORGET, timeout=60)
    choose(page, 33)
    click(page, VIEWER, ".lox-run")
    wait_job(page, "running", VIEWER)
    page.locator(f"{VIEWER} button.lox-pause").press("Enter")
    wait_job(page, "paused", VIEWER)
    page.wait_for_timeout(500)  # the cell that was being measured
    first = measured(kernel)
    page.wait_for_timeout(1000)
    assert measured(kernel) == first < 1089
    page.locator(f"{VIEWER} button.lox-pause", has_text="Resume").press("Enter")
    wait_job(page, "running", VIEWER)
    page.wait_for_function(
        f"([panel, plot, n]) => {{ const gd = document.querySelector(panel + ' ' + plot);"
        f" return {DOTS} > n; }}",
        arg=[VIEWER, PLOT, first],
    )
    page.locator(f"{VIEWER} button.lox-cancel").press("Enter")
    wait_job(page, "cancelled", VIEWER)
    then = measured(kernel)
    assert first < then < 1089
    assert evaluate(kernel, f"{STATE}.model.key == {STATE}.plane.origin_key")
    wait_shown(page, VIEWER, PLOT, DOTS, then)
    run_coarse(page, kernel)
    assert measured(kernel) == 25


def test_class_use_leaves_the_answers_out_of_the_page(page):
    answers = page.locator(f"{VIEWER} .lox-answer")
    expect(answers).to_have_count(1)
    said = answers.inner_text().strip()
    click(page, VIEWER, ".lox-classroom")
    expect(answers).to_have_count(0)
    wait_shown(page, VIEWER, PLOT, "gd.layout.font.size", 18)
    assert said not in json.dumps(shown(page, VIEWER, PLOT, "gd.data[1].customdata"))
    click(page, VIEWER, ".lox-classroom")
    expect(answers).to_have_count(1)


def test_save_figure_writes_map_or_surface_with_its_data(page, lab, kernel):
    for word, name in (("surface", "landscape-3d-5x5"), ("map", "landscape-map-5x5")):
        page.locator(f"{VIEWER} .lox-figure button", has_text=word).press("Enter")
        click(page, VIEWER, ".lox-save-figure")
        expect(page.locator(f"{VIEWER} .lox-message")).to_contain_text(name)
        data = json.loads((lab.folder / f"notebooks/figures/{name}.json").read_text())
        assert data["values"] == evaluate(kernel, f"{STATE}.data['values']")


def test_code_shows_the_calls(page):
    click(page, VIEWER, ".lox-code")
    code = page.locator(f"{VIEWER} .lox-code textarea")
    expect(code).to_have_value(re.compile(r"evaluate\("))
    click(page, VIEWER, ".lox-code")
    expect(code).to_be_hidden()


def test_the_first_coarse_landscape_comes_within_the_time_promised(page, kernel, record):
    choose(page, 17)
    times = []
    for _ in range(5):
        kernel.execute_interactive(FORGET, timeout=60)
        wait_shown(page, VIEWER, PLOT, DOTS, 0)
        times.append(page.evaluate(FILL, [VIEWER, PLOT]))
        page.locator(f"{VIEWER} button.lox-cancel").press("Enter")
        wait_job(page, "cancelled", VIEWER)
    judge(times, COARSE_MS, "landscape", record)
