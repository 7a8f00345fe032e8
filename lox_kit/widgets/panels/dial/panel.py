"""Panel 2, the LoX dial: what extrapolation does to the answers, and what it costs."""

from __future__ import annotations

import ipywidgets

from lox_kit.figures.plotly import alpha_spec
from lox_kit.widgets.drawing import Drawing
from lox_kit.widgets.shell import Panel, in_turn, opens
from lox_kit.widgets.sliders import setting_sliders

from .state import DialState
from .table import table_html

QUESTION = "What does pushing further along the safety subspace change, and what does it cost?"


@opens(DialState)
def dial(*arguments, **options) -> Panel:
    """Open the LoX dial: answers of base, aligned, LoX and attacked models, and their measures.

    The panel turns the weights of `model` in place; closing it gives them back. Opening it again
    for the same model closes the one before.

    Parameters
    ----------
    subspace : SafetySubspace
    model : Model
        The aligned model, from `load_model`.
    base : Model, optional
        Default: loaded by the name the subspace knows it under, when it is first asked.
    with_base : bool
        False leaves the base out, and its memory.
    attacked : mapping of str to Model, optional
        More columns, by their titles: `{"attacked": run.load()}`.
    questions : Questions, optional
        What is measured; default `Questions.default`, in the sandbox with 60 prompts of each kind.
        Without a judge of help, `Questions.with_help` says who reads the allowed ones' answers.
    store : Store, optional
        Keeps the answers beyond the session.
    setting : Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If the model's weights are not those of the subspace's aligned checkpoint.
    """
    return dial_panel(DialState(*arguments, **options))


def dial_panel(state: DialState) -> Panel:
    """Return the panel of a state; two panels of one state move together."""
    setting = state.setting
    panel = Panel("LoX dial", QUESTION, state)
    table = ipywidgets.HTML().add_class("lox-answers")
    drawing = Drawing(_axis(state, panel.size), "lox-axis")

    def draw_table() -> None:
        with state.job.lock:  # the job draws, too
            table.value = table_html(state.table, measured_on(state), hidden=setting.classroom)

    def draw_axis() -> None:
        with state.job.lock:
            drawing.show(_axis(state, panel.size))
            panel.refresh()

    def draw() -> None:
        draw_table()
        draw_axis()

    sliders = setting_sliders(setting, "k", "alpha")
    state.observe(in_turn(panel, draw_table, sliders), "table")
    follow = in_turn(panel, draw_axis, sliders)
    state.observe(follow, "curve")
    state.follow(follow, "alpha")
    state.link(sliders)
    controls = ipywidgets.HBox(list(sliders.values())).add_class("lox-controls")
    parts = [controls, _prompts(panel), table, drawing.widget, _actions(panel)]
    return panel.fill(*parts, draw=draw)


def measured_on(state: DialState) -> dict[str, str]:
    """Return what each measure of the strip is of, by its name; none where there is nothing."""
    m = state.questions
    if not (m.forbidden and m.allowed):
        return {}
    judge = "" if m.judge == "rule" else f", judge {getattr(m.judge, 'name', m.judge)}"
    forbidden, allowed = f"{len(m.forbidden)} forbidden{judge}", f"{len(m.allowed)} allowed{judge}"
    return {
        "asr": forbidden,
        "refusal": forbidden,
        "helpfulness": allowed,
        "drift": "nats per word, from aligned",
    }


def _axis(state: DialState, size: int) -> dict:
    """Return the alpha axis with the dial's place on it."""
    most = state.setting.most_alpha
    return alpha_spec(state.curve, state.setting.alpha, most=most, size=size)


def _prompts(panel: Panel) -> ipywidgets.Widget:
    """Return the prompt box, and the button for other evaluation prompts."""
    state = panel.state
    box = ipywidgets.Text(state.prompt, description="prompt", continuous_update=False)
    ipywidgets.link((state, "prompt"), (box.add_class("lox-prompt"), "value"))
    parts = [box]
    if state.questions.forbidden or state.questions.allowed:
        parts.append(
            panel.button("Other prompts", "refresh", state.other_prompts, "Other rows of the table")
        )
    return ipywidgets.HBox(parts).add_class("lox-controls")


def _actions(panel: Panel) -> ipywidgets.Widget:
    """Return what measures and what saves."""
    state = panel.state
    folder = ipywidgets.Text(state.adapter_name, description="folder").add_class("lox-folder")

    def rename(change=None) -> None:
        folder.value = state.adapter_name

    state.follow(rename, ["k", "alpha"])
    return ipywidgets.HBox(
        [
            panel.button("Measure", "bar-chart", state.measure, "Every model, at this setting"),
            panel.button("Measure along alpha", "line-chart", state.measure_axis),
            folder,
            panel.button("Save as adapter", "download", lambda: state.save_adapter(folder.value)),
        ]
    ).add_class("lox-controls")
