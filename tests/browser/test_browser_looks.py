"""How the panels look at two widths, and that the page stayed on this machine without an error."""

import pytest
from lab import OPEN, evaluate
from panels import PANELS
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
HEIGHT = 2000  # in which the tallest panel is seen whole


@pytest.fixture(params=[(1280, False), (900, False), (1280, True)], ids=["1280", "900", "class"])
def look(request, panels):
    """A width, with or without class use; the page is that wide, and every panel is filled."""
    width, classroom = request.param
    spectrum, dial, viewer = (panels[name] for name in ("spectrum", "dial", "landscape"))
    dial.click(".lox-reset")
    dial.wait_job("done")
    dial.click(".lox-measure-along-alpha")
    dial.wait_shown("gd.data[0].x.filter((a) => a % 0.5 === 0).length", 9)
    dial.wait_job("done")
    viewer.click(".lox-reset")
    viewer.click(".lox-run")
    expect(viewer.find(".lox-cliffs")).to_contain_text("289 of 289", timeout=300_000)
    viewer.wait_job("done")
    show_runs(panels["attack-lab"])
    panels["rank"].click(".lox-run")
    panels["rank"].wait_shown("gd.data[2].x.length", 9)
    panels["rank"].wait_job("done")
    panels["rank"].click(".lox-reset")
    dial.page.set_viewport_size({"width": width, "height": HEIGHT})
    if classroom:
        spectrum.click(".lox-classroom")
        spectrum.wait_shown("gd.layout.font.size", 18)
        every = spectrum.page.locator(".lox-panel").count()
        expect(spectrum.page.locator(".lox-panel.lox-class")).to_have_count(every)
    yield f"{width}{'-class' if classroom else ''}"
    if classroom:
        spectrum.click(".lox-classroom")
        spectrum.wait_shown("gd.layout.font.size", 12)


def show_runs(panel):
    """Let the attack lab show a whole run with another one laid over it."""
    runs = panel.find(".lox-runs select")
    panel.click(".lox-reset")
    for attack, steps in (("mixed", 40), ("arithmetic", 80)):
        panel.find(".lox-attack select").select_option(attack)
        panel.wait_shown("gd.layout.shapes[0].x0", steps)
        panel.click(".lox-run")
        expect(runs.locator("option", has_text=f"{attack} ·").first).to_be_attached(timeout=120_000)
        panel.wait_shown("gd.data[5].y.length", steps)
    panel.wait_job("done")
    titles = runs.locator("option").all_inner_texts()
    runs.select_option(index=next(i for i, t in enumerate(titles) if t.startswith("mixed")))
    panel.wait_shown("gd.data.filter((t) => t.x?.length).length", 16)


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_fits_its_width_and_nothing_in_it_scrolls(panels, look, name, record, tmp_path):
    panel = panels[name]
    page, shown = panel.page, panel.page.locator(panel.css)
    shown.scroll_into_view_if_needed()
    page.wait_for_function(FILLS, arg=[panel.css, panel.plot], timeout=30_000)
    if name == "dial":
        expect(panel.find(".lox-pending")).to_have_count(0, timeout=60_000)
        panel.wait_job("done")
    page.wait_for_function(
        "(panel) => document.querySelector(panel).getAnimations({subtree: true}).length === 0",
        arg=panel.css,
    )
    page.evaluate("() => document.activeElement.blur()")
    file = (record or tmp_path) / f"{name}-{look}.png"
    shown.screenshot(path=file)
    assert file.stat().st_size > 20_000
    assert page.evaluate(SCROLLS, panel.css) == []
    assert page.evaluate(OUTSIDE, panel.css) == []


@pytest.mark.quick
@pytest.mark.parametrize("name", ["dial", "landscape", "attack-lab", "rank"])
def test_the_job_and_one_plot_are_on_a_small_screen_together(panels, name):
    panel = panels[name]
    panel.page.set_viewport_size({"width": 1280, "height": 800})
    panel.page.locator(panel.css).evaluate("(e) => e.scrollIntoView({block: 'start'})")
    panel.page.wait_for_timeout(500)
    boxes = [panel.find(part).bounding_box() for part in (".lox-jobbar", panel.plot)]
    assert all(box["y"] > 80 and box["y"] + box["height"] < 775 for box in boxes), boxes


def test_run_again_the_cell_opens_a_panel_that_takes_the_place_of_the_first(panels, kernel):
    dial = panels["dial"]
    before = dial.state("id(state)")
    dial.execute("again = widgets.dial(subspace, model, attacked=attacked, setting=setting)")
    assert dial.state("id(state)") != before
    assert evaluate(kernel, f"sum(t.__name__ == 'DialState' for t, _ in {OPEN})") == 1
    assert evaluate(kernel, "again.state.job.wait(60)") is True
    assert evaluate(kernel, "again.state.job.status") == "done"


def test_no_request_left_this_machine_and_the_console_is_clean(tour):
    """Sorted to the end: what all the tests before it made the page do counts."""
    assert tour.left == []
    assert tour.errors == []
