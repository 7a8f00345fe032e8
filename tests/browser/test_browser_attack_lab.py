"""The attack lab in JupyterLab: it trains, pauses, resumes, and shows what the kernel has."""

import time

import pytest
from lab import evaluate
from playwright.sync_api import expect

LOSSES = "[0, 5].map((i) => gd.data[i].y.length)"  # of aligned and LoX
FEW = 6  # steps of a run
LONG = 60
AT = "gd.layout.shapes.map((s) => s.x0)"


@pytest.fixture
def panel(panels):
    """The lab with nothing running."""
    panel = panels["attack-lab"]
    end = time.monotonic() + 60
    while not panel.state("state.job.wait(0)"):
        assert time.monotonic() < end
        time.sleep(0.1)
    panel.click(".lox-reset")
    panel.wait_shown(AT, [80, 80, 80])
    return panel


def choose(panel, steps, seed):
    """Choose a short run by its own steps and seed."""
    panel.execute(f"_state.seed, _state.steps = {seed}, {steps}")
    panel.wait_shown(AT, [steps] * 3)


def run_short(panel, seed=100):
    """Show a run of few steps, trained if it is not in the store."""
    choose(panel, FEW, seed)
    panel.click(".lox-run")
    panel.wait_shown(LOSSES, [FEW, FEW])
    listed = panel.find(".lox-runs option", has_text=f"seed {seed}")
    expect(listed).to_be_attached(timeout=60_000)


def arm(panel, name):
    return panel.state(f"state.data['runs'][0]['arms']['{name}']")


@pytest.mark.quick
def test_run_trains_both_models_and_draws_what_the_kernel_has(panel):
    run_short(panel)
    assert panel.state("state.ways(state.choice)['LoX'].finished")
    for first, name in ((0, "aligned"), (5, "LoX")):
        way = arm(panel, name)
        assert panel.shown(f"Array.from(gd.data[{first}].y)") == way["losses"]
        for place, measure in ((2, "asr"), (4, "helpfulness")):
            drawn = panel.shown(f"Array.from(gd.data[{first + place}].y)")
            assert drawn == [p["measures"][measure]["value"] for p in way["points"]]
            steps = panel.shown(f"Array.from(gd.data[{first + place}].x)")
            assert steps == [p["step"] for p in way["points"]]
    expect(panel.find(".annotation-text").first).to_have_text(
        "arithmetic · learning rate 0.0004 · 6 steps · full · seed 100 · k = 6, α = 1"
    )
    panel.click(".lox-run")
    expect(panel.find(".lox-message")).to_contain_text("Nothing is left to train")


def test_keys_on_the_slider_move_the_line_and_the_numbers(panel):
    run_short(panel)
    panel.press(".lox-at", "ArrowLeft", times=2)
    panel.wait_shown(AT, [FEW - 2] * 3)
    assert panel.state("state.at") == FEW - 2
    assert panel.readout(".lox-at") == str(FEW - 2)
    cells = panel.find(".lox-numbers tbody tr").nth(1).locator("td")
    way = arm(panel, "LoX")
    expect(cells.nth(0)).to_contain_text(f"{way['losses'][FEW - 3]:.3f}")
    expect(cells.nth(0)).to_contain_text(f"at {FEW - 2}")
    point = [p for p in way["points"] if p["step"] <= FEW - 2][-1]
    share = point["measures"]["helpfulness"]
    expect(cells.nth(2)).to_contain_text(f"{share['count']}/{share['n']}")
    expect(cells.nth(2)).to_contain_text(f"at {point['step']}")


def test_pause_resume_cancel_and_run_again_resumes(panel):
    choose(panel, LONG, seed=int(time.time()) % 10**6)
    panel.click(".lox-run")
    panel.wait_until("gd.data[0].y.length > 2")
    panel.enter(".lox-pause")
    panel.wait_job("paused")
    panel.page.wait_for_timeout(800)  # the step, or the point, that was being made
    first = panel.state("state._made")
    panel.page.wait_for_timeout(800)
    assert panel.state("state._made") == first < LONG
    panel.enter(".lox-pause", has_text="Resume")
    panel.wait_job("running")
    panel.wait_until(f"gd.data[0].y.length > {first}")
    panel.enter(".lox-cancel")
    panel.wait_job("cancelled")
    cut = arm(panel, "aligned")["losses"]
    assert first < len(cut) < LONG
    panel.wait_shown(LOSSES, [len(cut), 0])
    panel.click(".lox-run")
    panel.wait_job("done")
    panel.wait_shown(LOSSES, [LONG, LONG])
    assert arm(panel, "aligned")["losses"][: len(cut)] == cut
    assert panel.state("state._made") == 2 * LONG - len(cut)


def test_a_run_in_the_list_is_laid_over_by_keyboard(panel):
    run_short(panel)
    run_short(panel, seed=101)
    panel.wait_job("done")
    listed = panel.find(".lox-runs select")
    titles = panel.state("[title for title, key in state.listed]")
    expect(listed.locator("option")).to_have_text(titles)
    listed.focus()
    panel.page.keyboard.press("Home")
    panel.page.keyboard.press("ArrowDown")
    panel.wait_shown("gd.data.length", 16)
    assert panel.state("len(state.data['runs'])") == 2
    assert panel.shown("gd.data[10].line.dash") == "dot"
    expect(panel.find(".lox-numbers tbody tr")).to_have_count(4)


def test_the_controls_choose_by_keyboard_and_bring_the_preset(panel, kernel):
    attack, title = panel.find(".lox-attack select"), panel.find(".annotation-text").first
    attack.focus()
    panel.page.keyboard.press("ArrowDown")
    panel.wait_shown(AT, [40] * 3)
    assert panel.state("state.attack") == "context"
    attack.select_option("persona")
    panel.wait_shown(AT, [20] * 3)
    assert panel.readout(".lox-steps") == "20"
    panel.find(".lox-training button", has_text="LoRA").press("Enter")
    panel.wait_shown(AT, [30] * 3)
    panel.press(".lox-rate", "ArrowRight")
    expect(title).to_contain_text("learning rate 0.0025")
    assert panel.state("state.learning_rate") == 0.0025
    panel.press(".lox-steps", "ArrowLeft", times=2)
    panel.wait_shown(AT, [28] * 3)
    panel.press(".lox-k", "ArrowRight")
    expect(title).to_contain_text("k = 7")
    assert evaluate(kernel, "setting.k") == 7
