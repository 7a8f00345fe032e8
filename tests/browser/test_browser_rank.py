"""The panel of rank and R in JupyterLab: Run, Cancel, k by keyboard, and what it saves."""

import json
import re

import pytest
from lab import evaluate
from panels import RANK, SPECTRUM, TIMED, click, judge, press, readout, shown, wait_job, wait_shown
from playwright.sync_api import expect

from lox_kit.figures.plotly.rank import FIRST_ATTACK, VALUES

PLOT = ".lox-rank"
ALIVE = "__import__('ipywidgets').widgets.widget._instances.values()"
STATE = f"next(w.state for w in {ALIVE} if 'RankState' in repr(getattr(w, 'state', None)))"
ASR, SUMS = f"gd.data[{VALUES[0]}]", f"gd.data[{FIRST_ATTACK + 1}]"
MARK = "gd.layout.annotations[0].text"
RANK_MS = 400
FORGET = f"""
from lox_kit.store import MemoryStore as _Memory
_state = {STATE}
_state._rows.clear(), _state._r_ft.clear()
_state.store = _Memory()
_state._show()
"""

SLOWLY = f"""{FORGET}
import time as _time
_keep = _state._keep
_state._keep = lambda row: (_time.sleep(0.5), _keep(row))
"""


@pytest.fixture
def page(tour):
    """The page, the panel as it opened and nothing running."""
    page = tour.page
    page.wait_for_selector(f"{RANK} {PLOT} .main-svg", timeout=60_000)
    click(page, RANK, ".lox-reset")
    wait_shown(page, RANK, PLOT, MARK, "k = 6")
    return page


def run(page, kernel):
    """Measure all of it, unless it is; return when it is drawn."""
    click(page, RANK, ".lox-run")
    wait_shown(page, RANK, PLOT, f"{ASR}.x.length", 9)
    wait_job(page, "done", RANK)
    assert evaluate(kernel, f"{STATE}.missing") == []


def measured(kernel, measure):
    """Return one measure of the ranks in the kernel."""
    rows = f"[r for r in {STATE}.data['rows'] if r['r'] is not None]"
    return evaluate(kernel, f"[r['measures'][{measure!r}]['value'] for r in {rows}]")


@pytest.mark.quick
def test_run_fills_the_curve_and_r_with_what_the_kernel_measured(page, kernel):
    kernel.execute_interactive(FORGET, timeout=60)
    wait_shown(page, RANK, PLOT, f"{ASR}.x.length", 0)
    run(page, kernel)
    for at, measure in zip(VALUES, ("asr", "helpfulness"), strict=True):
        drawn = shown(page, RANK, PLOT, f"Array.from(gd.data[{at}].y)")
        assert drawn == pytest.approx(measured(kernel, measure))
    assert len(set(measured(kernel, "asr"))) > 2
    expect(page.locator(f"{RANK} .lox-found")).to_contain_text("Safety rank")
    rows = page.locator(f"{RANK} .lox-ratios tbody tr")
    assert [row.split("\n")[0].split("\t")[0] for row in rows.all_inner_texts()] == [
        "sums",
        "sums on LoX",
    ]
    click(page, RANK, ".lox-run")
    expect(page.locator(f"{RANK} .lox-message")).to_contain_text("Nothing is missing")


def test_keys_on_the_slider_change_line_and_r_as_they_change_the_kernel(page, kernel):
    run(page, kernel)
    before = shown(page, RANK, PLOT, f"Array.from({SUMS}.y)")
    press(page, RANK, ".lox-k", "ArrowRight", times=4)
    wait_shown(page, RANK, PLOT, MARK, "k = 10")
    assert readout(page, RANK, ".lox-k") == "10"
    expect(page.locator(f"{SPECTRUM} .lox-k .widget-readout")).to_have_text("10")
    assert evaluate(kernel, "setting.k") == 10
    line = "__import__('lox_kit.figures.rank_data').figures.rank_data"
    at = evaluate(kernel, f"{line}.place(10)")
    assert shown(page, RANK, PLOT, "gd.layout.shapes[0].x0") == at
    _, expected = evaluate(kernel, f"{line}.r_line({STATE}.data, 'sums')")
    assert shown(page, RANK, PLOT, f"Array.from({SUMS}.y)") == expected != before
    share = evaluate(kernel, "subspace.r_ft(BASE, runs['aligned'].folder, 10).r_ft.tolist()")
    held = evaluate(kernel, f"[x['r_ft']['sums'] for x in {STATE}.data['layers']]")
    assert sorted(held) == pytest.approx(sorted(share), rel=1e-5)
    median = evaluate(kernel, f"{STATE}.data['ratios']['sums']['median']")
    expect(page.locator(f"{RANK} .lox-ratios tbody tr").first).to_contain_text(f"{median:.2f}")


def test_a_kind_is_shown_alone(page, kernel):
    run(page, kernel)
    page.locator(f"{RANK} .lox-kind select").select_option("lm_head")
    wait_shown(page, RANK, PLOT, f"Array.from({SUMS}.x).filter((x) => x !== null).length", 1)
    expect(page.locator(f"{RANK} .lox-ratios thead")).to_contain_text("at k = 6, lm_head")
    click(page, RANK, ".lox-reset")
    wait_shown(page, RANK, PLOT, f"Array.from({SUMS}.x).filter((x) => x !== null).length", 6)


def test_pause_and_cancel_work_and_run_goes_on(page, kernel):
    kernel.execute_interactive(SLOWLY, timeout=60)
    wait_shown(page, RANK, PLOT, f"{ASR}.x.length", 0)
    click(page, RANK, ".lox-run")
    page.wait_for_function(
        "([panel, plot]) => { const gd = document.querySelector(panel + ' ' + plot);"
        f" return {ASR}.x.length >= 1; }}",
        arg=[RANK, PLOT],
    )
    page.locator(f"{RANK} button.lox-pause").press("Enter")
    wait_job(page, "paused", RANK)
    page.locator(f"{RANK} button.lox-cancel").press("Enter")
    wait_job(page, "cancelled", RANK)
    some = len(measured(kernel, "asr"))
    assert 1 <= some < 9
    wait_shown(page, RANK, PLOT, f"{ASR}.x.length", some)
    known = evaluate(kernel, f"len({STATE}.store.kinds['answer'])")
    kernel.execute_interactive("del _state._keep", timeout=60)
    run(page, kernel)
    assert evaluate(kernel, f"len({STATE}.store.kinds['answer'])") == 2 * 120 * 10 > known


def test_save_figure_writes_the_twin_with_its_data(page, lab, kernel):
    run(page, kernel)
    click(page, RANK, ".lox-save-figure")
    expect(page.locator(f"{RANK} .lox-message")).to_contain_text("rank-all-k6")
    data = json.loads((lab.folder / "notebooks/figures/rank-all-k6.json").read_text())
    assert data == evaluate(kernel, f"{STATE}.data")


def test_code_shows_the_calls_and_follows_the_slider(page):
    click(page, RANK, ".lox-code")
    code = page.locator(f"{RANK} .lox-code textarea")
    expect(code).to_have_value(re.compile(r"rank_and_r_data\(subspace, curve, r_ft, k=6,"))
    press(page, RANK, ".lox-k", "ArrowRight")
    expect(code).to_have_value(re.compile(r"rank_and_r_data\(subspace, curve, r_ft, k=7,"))
    click(page, RANK, ".lox-code")
    expect(code).to_be_hidden()


def test_r_follows_the_slider_within_the_time_promised(page, kernel, record):
    run(page, kernel)
    arguments = [RANK, ".lox-k", PLOT, "panel.querySelector('.annotation-text').textContent"]
    times = []
    for _ in range(12):
        wait_job(page, "done", ".lox-panel:has(.lox-axis)")  # the dial follows the same slider
        times.append(page.evaluate(TIMED, arguments))
    judge(times, RANK_MS, "rank", record)
