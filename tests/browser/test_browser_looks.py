"""How the panels look at two widths, and that the page stayed on this machine without an error."""

import pytest
from lab import OPEN, evaluate, state_of
from panels import DIAL, LAB, RANK, SPECTRUM, VIEWER, click, wait_job, wait_shown
from playwright.sync_api import expect

FILLS = """([panel, plot]) => {
    const found = document.querySelector(panel + ' ' + plot);
    const svg = found.querySelector('.main-svg');
    return Math.abs(svg.getBoundingClientRect().width - found.clientWidth) < 4;
}"""
SCROLLS = """(panel) => [document.querySelector(panel), ...document.querySelectorAll(panel + ' *')]
    .filter((e) => !e.matches('textarea, select, option, svg *, input'))
    .filter((e) => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
                || ['auto', 'scroll'].includes(getComputedStyle(e).overflowY))
    .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
    .map((e) => e.className)"""
OUTSIDE = """(panel) => {
    const edge = document.querySelector(panel).getBoundingClientRect();
    return [...document.querySelectorAll(panel + ' button, ' + panel + ' select, '
        + panel + ' input, ' + panel + ' td, ' + panel + ' .main-svg')]
        .filter((e) => e.offsetParent !== null || e.matches('.main-svg'))
        .map((e) => [e.className.baseVal ?? e.className, e.getBoundingClientRect()])
        .filter(([, box]) => box.right > edge.right + 1 || box.left < edge.left - 1)
        .map(([name]) => name);
}"""
STATE = state_of("DialState")
PANELS = {
    "spectrum": (SPECTRUM, ".lox-explorer"),
    "dial": (DIAL, ".lox-axis"),
    "landscape": (VIEWER, ".lox-viewer"),
    "attack-lab": (LAB, ".lox-lab"),
    "rank": (RANK, ".lox-rank"),
}
COMPLETE = """(panel) => {
    const words = document.querySelector(panel + ' .lox-cliffs').innerText;
    return words.includes('289 of 289');
}"""
HEIGHT = 2000  # in which the tallest panel is seen whole


@pytest.fixture(params=[(1280, False), (900, False), (1280, True)], ids=["1280", "900", "class"])
def look(request, tour):
    """A width, with or without class use; the page is that wide."""
    width, classroom = request.param
    page = tour.page
    click(page, DIAL, ".lox-reset")
    wait_job(page, "done")
    click(page, DIAL, ".lox-measure-along-alpha")
    wait_shown(page, DIAL, ".lox-axis", "gd.data[0].x.filter((a) => a % 0.5 === 0).length", 9)
    wait_job(page, "done")
    click(page, VIEWER, ".lox-reset")
    click(page, VIEWER, ".lox-run")
    page.wait_for_function(COMPLETE, arg=VIEWER, timeout=120_000)
    wait_job(page, "done", VIEWER)
    show_runs(page)
    click(page, RANK, ".lox-run")
    wait_shown(page, RANK, ".lox-rank", "gd.data[2].x.length", 9)
    wait_job(page, "done", RANK)
    click(page, RANK, ".lox-reset")
    page.set_viewport_size({"width": width, "height": HEIGHT})
    if classroom:
        click(page, SPECTRUM, ".lox-classroom")
        wait_shown(page, SPECTRUM, ".lox-explorer", "gd.layout.font.size", 18)
    yield f"{width}{'-class' if classroom else ''}"
    if classroom:
        click(page, SPECTRUM, ".lox-classroom")
        wait_shown(page, SPECTRUM, ".lox-explorer", "gd.layout.font.size", 12)


def show_runs(page):
    """Let the attack lab show a whole run with another one laid over it."""
    runs = page.locator(f"{LAB} .lox-runs select")
    click(page, LAB, ".lox-reset")
    for attack, steps in (("mixed", 40), ("arithmetic", 80)):
        page.locator(f"{LAB} .lox-attack select").select_option(attack)
        wait_shown(page, LAB, ".lox-lab", "gd.layout.shapes[0].x0", steps)
        click(page, LAB, ".lox-run")
        expect(runs.locator("option", has_text=f"{attack} ·").first).to_be_attached(timeout=120_000)
        wait_shown(page, LAB, ".lox-lab", "gd.data[5].y.length", steps)
    wait_job(page, "done", LAB)
    titles = runs.locator("option").all_inner_texts()
    runs.select_option(index=next(i for i, t in enumerate(titles) if t.startswith("mixed")))
    wait_shown(page, LAB, ".lox-lab", "gd.data.filter((t) => t.x?.length).length", 16)


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_fits_its_width_and_nothing_in_it_scrolls(tour, look, name, record, tmp_path):
    page, (panel, plot) = tour.page, PANELS[name]
    page.locator(panel).scroll_into_view_if_needed()
    page.wait_for_function(FILLS, arg=[panel, plot], timeout=30_000)
    if name == "dial":
        expect(page.locator(f"{panel} .lox-pending")).to_have_count(0, timeout=60_000)
        wait_job(page, "done")
    page.wait_for_function(
        "(panel) => document.querySelector(panel).getAnimations({subtree: true}).length === 0",
        arg=panel,
    )
    page.evaluate("() => document.activeElement.blur()")
    file = (record or tmp_path) / f"{name}-{look}.png"
    page.locator(panel).screenshot(path=file)
    assert file.stat().st_size > 20_000
    assert page.evaluate(SCROLLS, panel) == []
    assert page.evaluate(OUTSIDE, panel) == []


def test_run_again_the_cell_opens_a_panel_that_takes_the_place_of_the_first(tour, kernel):
    before = evaluate(kernel, f"id({STATE})")
    reply = kernel.execute_interactive(
        "again = widgets.dial(subspace, model, attacked=attacked, setting=setting)", timeout=60
    )
    assert reply["content"]["status"] == "ok"
    assert evaluate(kernel, f"id({STATE})") != before
    assert evaluate(kernel, f"sum(t.__name__ == 'DialState' for t, _ in {OPEN})") == 1
    assert evaluate(kernel, "again.state.job.wait(60)") is True
    assert evaluate(kernel, "again.state.job.status") == "done"


def test_no_request_left_this_machine_and_the_console_is_clean(tour):
    """Sorted to the end: what all the tests before it made the page do counts."""
    assert tour.left == []
    assert tour.errors == []
