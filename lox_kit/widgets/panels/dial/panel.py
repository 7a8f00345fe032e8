"""Panel 2, the LoX dial: what extrapolation does to the answers, and what it costs."""

from __future__ import annotations

import ipywidgets

from lox_kit.figures.plotly import Spec, alpha_spec
from lox_kit.measures import Questions
from lox_kit.widgets.code import judge_name
from lox_kit.widgets.shell import Panel, controls, opens

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
    state = DialState(*arguments, **options)
    panel = Panel("LoX dial", QUESTION, state)

    def table() -> str:
        hidden = state.setting.classroom
        return table_html(state.data["table"], measured_on(state.questions), hidden=hidden)

    def axis() -> Spec:
        most = state.setting.most_alpha
        return alpha_spec(state.data["curve"], state.data["alpha"], most=most, size=panel.size)

    prompt = ipywidgets.Text(description="prompt", continuous_update=False)
    asks = [panel.control("prompt", prompt)]
    if state.questions.forbidden or state.questions.allowed:
        asks.append(
            panel.button("Other prompts", "refresh", state.other_prompts, "Other rows of the table")
        )
    return panel.fill(
        controls(*panel.sliders("k", "alpha")),
        panel.runs(
            panel.button("Measure", "bar-chart", state.measure, "Every model, at this setting"),
            panel.button("Measure along alpha", "line-chart", state.measure_axis),
            panel.button("Save as adapter", "download", state.save_adapter, "In a folder here"),
        ),
        panel.figure("axis", axis),
        controls(*asks),
        panel.html("answers", table),
    )


def measured_on(questions: Questions) -> dict[str, str]:
    """Return what each measure of the strip is of, by its name; none where there is nothing."""
    if not (questions.forbidden and questions.allowed):
        return {}
    by = judge_name(questions.judge)
    judge = "" if by == "rule" else f", judge {by}"
    forbidden = f"{len(questions.forbidden)} forbidden{judge}"
    return {
        "asr": forbidden,
        "refusal": forbidden,
        "helpfulness": f"{len(questions.allowed)} allowed{judge}",
        "drift": "nats per word, from aligned",
    }
