"""Panel 4, the attack lab: fine-tuning without and with LoX, seen as it goes on."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from lox_kit.figures.plotly import lab_spec
from lox_kit.widgets.drawing import Drawing
from lox_kit.widgets.shell import Panel, in_turn, opens
from lox_kit.widgets.sliders import setting_sliders

from .state import AttackLabState
from .table import numbers_html

QUESTION = "What does this fine-tuning do to safety, with and without LoX?"
LISTED = 4  # finished runs seen at a time


@opens(AttackLabState)
def attack_lab(*arguments, **options) -> Panel:
    """Open the attack lab: one fine-tuning of the aligned model and of its LoX, seen as it goes on.

    Both are trained on the same rows in the same order, on copies, and measured on the way. A run
    that was cancelled goes on where it was, and one that the store knows is shown at once. Opening
    it again for the same model closes the one before.

    Parameters
    ----------
    subspace : SafetySubspace
    model : Model
        The aligned model, from `load_model`; not one under a dial.
    attacks : mapping of str to Attack, optional
        More attacks, by their names: `{"my data": file_attack("my.jsonl")}`. Offered besides are
        the presets in the model's language whose data are here.
    questions : Questions, optional
        What is asked at every point; default `Questions.default`, in the sandbox with 24 prompts
        of each kind. Elsewhere `Questions.default(model, forbidden=..., allowed=...)`.
    store : Store, optional
        Keeps runs beyond the session, and lists those of before. Default is a folder in
        `folders.cache_folder()` that is removed at the end; a cancelled or paused run may keep
        there what it goes on from: the weights and the optimiser's state.
    setting : Setting, optional
        Shared with other panels: its k and alpha are those of LoX.

    Raises
    ------
    ValueError
        If the model's weights are not those of the subspace's aligned checkpoint, an attack is not
        in its language, or there are no prompts or no attack's data.
    """
    return attack_lab_panel(AttackLabState(*arguments, **options))


def attack_lab_panel(state: AttackLabState) -> Panel:
    """Return the panel of a state; two panels of one state move together."""
    panel = Panel("Attack lab", QUESTION, state)
    drawing = Drawing(lab_spec(state.data, panel.size), "lox-lab")
    table = ipywidgets.HTML().add_class("lox-numbers")

    def draw(change=None) -> None:
        with state.job.lock:  # the job draws, too
            drawing.show(lab_spec(state.data, panel.size))
            table.value = numbers_html(state.data)
            panel.refresh()

    lox = setting_sliders(state.setting, "k", "alpha")
    state.observe(in_turn(panel, draw, lox), "data")
    state.link(lox)
    parts = [
        _what(panel, list(lox.values())),
        drawing.widget,
        _where(panel),
        table,
        _finished(panel),
    ]
    return panel.fill(*parts, draw=draw)


def _what(panel: Panel, lox: list[ipywidgets.Widget]) -> ipywidgets.Widget:
    """Return what chooses the attack and its settings, and Run."""
    state = panel.state
    attack = ipywidgets.Dropdown(options=list(state.attacks), description="attack")
    training = ipywidgets.ToggleButtons(options=state.trainings)
    rate = ipywidgets.SelectionSlider(options=_rates(state), description="learning rate")
    steps = ipywidgets.IntSlider(state.steps, 1, _longest(state), description="steps")
    seed = ipywidgets.BoundedIntText(state.seed, 0, 10**6, description="seed")

    def follow() -> None:
        attack.value = state.attack
        if list(training.options) != state.trainings:
            training.options = state.trainings
        training.value = state.training
        if list(rate.options) != _rates(state):
            rate.options = _rates(state)
        rate.value = state.learning_rate
        _move(steps, state.steps, _longest(state))
        seed.value = state.seed

    controls = {"attack": attack, "training": training, "learning_rate": rate, "steps": steps,
                "seed": seed}  # fmt: skip
    _tie(panel, controls, follow)
    for name, control in controls.items():
        control.add_class("lox-" + name.rpartition("_")[2])
    run = panel.button("Run", "play", state.run, "Attack aligned, then LoX; goes on where it was")
    rows = ([attack, training, seed, run], [_row(rate, steps), _row(*lox)])
    return ipywidgets.VBox([_row(*row) for row in rows])


def _row(*parts: ipywidgets.Widget) -> ipywidgets.Widget:
    """Return parts side by side, as many as the width takes."""
    return ipywidgets.HBox(parts).add_class("lox-controls")


def _tie(
    panel: Panel,
    controls: dict[str, ipywidgets.Widget],
    follow: Callable[[], None],
    *also: str,
) -> None:
    """Let controls set the state's traits of their names, and follow them, and `also` others.

    What they set is held back while they follow: a slider whose range changes moves by itself. One
    change is made after the other: a page's callbacks come in several threads.
    """
    state, following = panel.state, []

    def all_follow() -> None:
        with state.job.lock:
            following.append(True)
            try:
                follow()
            finally:
                following.pop()

    def setter(name: str, control: ipywidgets.Widget) -> Callable[[], None]:
        def set_trait() -> None:
            with state.job.lock:
                if not following:
                    setattr(state, name, control.value)

        return panel.guard(set_trait)

    for name, control in controls.items():
        control.observe(setter(name, control), "value")
    state.observe(panel.guard(all_follow), [*controls, *also])
    all_follow()


def _rates(state: AttackLabState) -> list[tuple[str, float]]:
    """Return the learning rates offered, with their names."""
    return [(f"{rate:g}", rate) for rate in state.rates]


def _longest(state: AttackLabState) -> int:
    """Return how many steps are offered: twice the preset's."""
    return max(2 * state.preset[1], state.steps)


def _move(slider: ipywidgets.IntSlider, value: int, most: int) -> None:
    """Give a slider a value and a range that need not lie in its old one."""
    slider.max = max(slider.max, value)
    slider.value = value
    slider.max = most


def _where(panel: Panel) -> ipywidgets.Widget:
    """Return the slider of the step that is looked at."""
    state = panel.state
    at = ipywidgets.IntSlider(state.at, 0, state.most, description="at step").add_class("lox-at")
    _tie(panel, {"at": at}, lambda: _move(at, state.at, state.most), "steps", "chosen")
    return _row(at)


def _finished(panel: Panel) -> ipywidgets.Widget:
    """Return the list of finished runs; those chosen there are laid over the one above."""
    state = panel.state
    runs = ipywidgets.SelectMultiple(options=state.listed, value=state.chosen, rows=LISTED)
    about = ipywidgets.HTML().add_class("lox-about")

    def follow() -> None:
        if tuple(runs.options) != state.listed:
            runs.options = state.listed  # which takes the choice away
        runs.value = state.chosen
        text = "choose some (Ctrl, Shift) to lay them over this one" if state.listed else "none yet"
        about.value = f"<b>Finished runs:</b> {text}"

    _tie(panel, {"chosen": runs}, follow, "listed")
    return ipywidgets.VBox([about, runs.add_class("lox-runs")]).add_class("lox-finished")
