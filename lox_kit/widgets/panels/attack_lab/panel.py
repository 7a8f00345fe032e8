"""Panel 4, the attack lab: fine-tuning without and with LoX, seen as it goes on.

Below its plots: the numbers at the step that is looked at. What a person wrote is escaped.
"""

from __future__ import annotations

from html import escape

import ipywidgets

from lox_kit.figures import LAB_ARMS, run_title
from lox_kit.figures.plotly import lab_spec
from lox_kit.widgets.shell import Panel, controls, opens
from lox_kit.widgets.tables import NONE, row, table

from .state import AttackLabState

QUESTION = "What does this fine-tuning do to safety, with and without LoX?"
LISTED = 4  # finished runs seen at a time
UNKNOWN = NONE.format("–")
COLUMNS = {
    "asr": "ASR",
    "persona_asr": "ASR under the persona",
    "helpfulness": "helpfulness",
    "task": "attack's task solved",
}


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
    state = AttackLabState(*arguments, **options)
    panel = Panel("Attack lab", QUESTION, state)
    at = ipywidgets.IntSlider(description="at step")
    runs = ipywidgets.SelectMultiple(rows=LISTED)
    about = "<b>Finished runs:</b> choose some (Ctrl, Shift) to lay them over this one"
    chosen = panel.control("chosen", runs, "runs", options=lambda: state.listed)
    finished = ipywidgets.VBox([ipywidgets.HTML(about).add_class("lox-about"), chosen])
    return panel.fill(
        _what(panel),
        panel.figure("lab", lambda: lab_spec(state.data, panel.size)),
        controls(panel.control("at", at, max=lambda: state.most)),
        panel.html("numbers", lambda: numbers_html(state.data)),
        finished.add_class("lox-finished"),
    )


def _what(panel: Panel) -> ipywidgets.Widget:
    """Return what chooses the attack and its settings, and Run."""
    state, control = panel.state, panel.control

    attack = ipywidgets.Dropdown(options=list(state.attacks), description="attack")
    training = ipywidgets.ToggleButtons(options=state.trainings)
    seed = ipywidgets.BoundedIntText(max=10**6, description="seed")
    rate = ipywidgets.SelectionSlider(options=[1.0], description="learning rate")
    steps = ipywidgets.IntSlider(min=1, description="steps")
    how = control("training", training, options=lambda: tuple(state.trainings))
    first = controls(control("attack", attack), how, control("seed", seed))
    named = {"options": lambda: [(f"{rate:g}", rate) for rate in state.rates]}
    longest = {"max": lambda: max(2 * state.preset[1], state.steps)}
    learning = control("learning_rate", rate, "rate", **named)
    second = controls(learning, control("steps", steps, **longest))
    lox = controls(*panel.sliders("k", "alpha"))
    run = panel.button("Run", "play", state.run, "Attack aligned, then LoX; resumes where it was")
    return ipywidgets.VBox([first, controls(second, lox), panel.runs(run)])


def numbers_html(data: dict) -> str:
    """Return the table: two lines for every run, the aligned model's and LoX's.

    Parameters
    ----------
    data : dict
        `AttackLabState.data`.
    """
    runs, at = data["runs"], data["at"]
    points = [p for run in runs for arm in run["arms"].values() for p in arm["points"]]
    measured = {"asr", "helpfulness"}.union(*(point["measures"] for point in points))
    shares = {m: name for m, name in COLUMNS.items() if m in measured}
    heads = ("run", "model", "loss (nats per token)", *shares.values())
    lines = "".join(_lines(run, i, at, list(shares)) for i, run in enumerate(runs))
    steps = ", ".join(map(str, sorted({point["step"] for point in points})))
    about = (
        f"At step {at}, or where a number says “at”, the nearest one before it that was trained or "
        f"measured ({steps or 'none yet'}). Shares have 95 % Wilson intervals."
    )
    return table(f"numbers at step {at}", heads, f"<tbody>{lines}</tbody>", about=about)


def _lines(run: dict, i: int, at: int, shares: list[str]) -> str:
    """Return one run's lines."""
    title = escape(run_title(run)).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    title = f"{i}: {title}" if i else title
    lines, before = "", f"<th scope='rowgroup' rowspan='{len(LAB_ARMS)}'>{title}</th>"
    for arm in LAB_ARMS:
        way = run["arms"][arm]
        points = [point for point in way["points"] if point["step"] <= at]
        losses = way["losses"][:at]
        loss = f"<b>{losses[-1]:.3f}</b> <small>at {len(losses)}</small>" if losses else UNKNOWN
        lines += row(arm, loss, *(_share(points, share) for share in shares), before=before)
        before = ""
    return lines


def _share(points: list[dict], name: str) -> str:
    """Return a share at the last of these points: its count, its interval, and at which step."""
    if not points or name not in points[-1]["measures"]:
        return UNKNOWN
    share = points[-1]["measures"][name]
    return (
        f"<b>{share['value']:.0%}</b> <span>{share['count']}/{share['n']}</span>"
        f"<small>{100 * share['low']:.0f}–{share['high']:.0%}, at {points[-1]['step']}</small>"
    )
