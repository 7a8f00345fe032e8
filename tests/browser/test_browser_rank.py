"""The panel of rank and R in JupyterLab: Run, Cancel, k by keyboard, and what it saves."""

import pytest
from lab import evaluate
from panels import judge
from playwright.sync_api import expect

ASR, HELP, SUMS = "gd.data[2]", "gd.data[3]", "gd.data[10]"
MARK = "gd.layout.annotations[0].text"
RANK_MS = 400
FORGET = """
from lox_kit.store import MemoryStore as _Memory
_state.r_ft.clear()
_state.store = _Memory()
_state._show_rows()
"""


@pytest.fixture
def panel(panels):
    """The panel as it opened and nothing running."""
    panel = panels["rank"]
    panel.page.wait_for_selector(f"{panel.css} {panel.plot} .main-svg", timeout=60_000)
    panel.click(".lox-reset")
    panel.wait_shown(MARK, "k = 6")
    return panel


def run(panel):
    """Measure all of it, unless it is; return when it is drawn."""
    panel.click(".lox-run")
    panel.wait_shown(f"{ASR}.x.length", 9)
    panel.wait_job("done")
    assert panel.state("state.missing") == []


def measured(panel, measure):
    """Return one measure of the ranks in the kernel."""
    rows = "[r for r in state.data['rows'] if r['r'] is not None]"
    return panel.state(f"[r['measures'][{measure!r}]['value'] for r in {rows}]")


@pytest.mark.quick
def test_run_fills_the_curve_and_r_with_what_the_kernel_measured(panel):
    panel.execute(FORGET)
    panel.wait_shown(f"{ASR}.x.length", 0)
    run(panel)
    for trace, measure in ((ASR, "asr"), (HELP, "helpfulness")):
        drawn = panel.shown(f"Array.from({trace}.y)")
        assert drawn == pytest.approx(measured(panel, measure))
    assert len(set(measured(panel, "asr"))) > 2
    expect(panel.find(".lox-found")).to_contain_text("Safety rank")
    rows = panel.find(".lox-ratios tbody tr").all_inner_texts()
    assert [row.split("\n")[0].split("\t")[0] for row in rows] == [
        "arithmetic",
        "arithmetic on LoX",
    ]
    panel.click(".lox-run")
    expect(panel.find(".lox-message")).to_contain_text("Nothing is missing")


def test_keys_on_the_slider_change_line_and_r_as_they_change_the_kernel(panel, panels, kernel):
    run(panel)
    before = panel.shown(f"Array.from({SUMS}.y)")
    panel.press(".lox-k", "ArrowRight", times=4)
    panel.wait_shown(MARK, "k = 10")
    assert panel.readout(".lox-k") == "10"
    expect(panels["spectrum"].find(".lox-k .widget-readout")).to_have_text("10")
    assert evaluate(kernel, "setting.k") == 10
    line = "__import__('lox_kit.figures.rank_data').figures.rank_data"
    assert panel.shown("gd.layout.shapes[0].x0") == evaluate(kernel, f"{line}.place(10)")
    expected = panel.state("state.data['lines'][1]['median']")
    assert panel.shown(f"Array.from({SUMS}.y)") == expected != before
    share = evaluate(kernel, "subspace.r_ft(BASE, runs['aligned'].folder, 10).r_ft.tolist()")
    held = panel.state("[x['r_ft']['arithmetic'] for x in state.data['layers']]")
    assert sorted(held) == pytest.approx(sorted(share), rel=1e-5)
    median = panel.state("state.data['ratios']['arithmetic']['median']")
    expect(panel.find(".lox-ratios tbody tr").first).to_contain_text(f"{median:.2f}")


def test_r_follows_the_slider_within_the_time_promised(panel, panels, record):
    run(panel)
    times = []
    for _ in range(12):
        panels["dial"].wait_job("done")  # the dial follows the same slider
        times.append(panel.times(".lox-k", "panel.querySelector('.annotation-text').textContent"))
    judge(times, RANK_MS, "rank", record)
