"""Panel 2, the LoX dial: what extrapolation does to the answers, and what it costs.

In its table models stand across, and their measures above their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from itertools import product

import ipywidgets

from lox_kit.figures import MEASURE_STYLES, SHORT
from lox_kit.figures.plotly import Spec, alpha_spec
from lox_kit.measures import KINDS, Questions
from lox_kit.widgets import tables
from lox_kit.widgets.code import judge_name
from lox_kit.widgets.export import SIZE, PagePanel, Recording
from lox_kit.widgets.shell import controls, opens

from .state import ALPHAS, LOX, DialState

COLOURS = {measure: style["color"] for measure, style in MEASURE_STYLES.items()}
VERDICTS = {  # word, colour: a recipe for the forbidden counts as ASR, one for the allowed as help
    "refused": ("refused", COLOURS["refusal"]),
    "complied": ("complied", COLOURS["asr"]),
    "helped": ("helped", COLOURS["helpfulness"]),
    "other": ("neither", "#595959"),
    "answered": ("answered", "#595959"),
}

KS = (1, 3, 6, 16)  # that a page has, besides the panel's own
QUESTION = "What does pushing further along the safety subspace change, and what does it cost?"


@opens(DialState)
def dial(*arguments, **options) -> PagePanel:
    """Open the LoX dial: answers of base, aligned, LoX and attacked models, and their measures.

    The panel turns the weights of `model` in place; closing it gives them back. Opening it again
    for the same model closes the one before. A long answer opens by a click or by Enter.

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
    keep_on : "device" or "cpu"
        Where the aligned weights are kept, see `LoxDial`: with "cpu" beside a GPU.
    setting : Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If the model's weights are not those of the subspace's aligned checkpoint.
    """
    state = DialState(*arguments, **options)
    panel = PagePanel("LoX dial", QUESTION, state)
    panel.record = partial(record, state)
    which = [
        panel.control("kind", ipywidgets.Dropdown(options=state.kinds, description="matrices"))
    ]
    if state.depth > 1:
        layers = ipywidgets.IntRangeSlider(max=state.depth - 1, description="layers")
        which.append(panel.control("layers", layers))
    prompt = ipywidgets.Text(description="prompt", continuous_update=False)
    asks = [panel.control("prompt", prompt)]
    if state.questions.forbidden or state.questions.allowed:
        asks.append(
            panel.button("Other prompts", "refresh", state.other_prompts, "Other rows of the table")
        )
    return panel.fill(
        controls(*panel.sliders("k", "alpha"), *which),
        panel.runs(
            panel.button("Measure", "bar-chart", state.measure, "Every model, at this setting"),
            panel.button("Measure along alpha", "line-chart", state.measure_axis),
            panel.button("Keep", "thumb-tack", state.keep, "This setting, as a column"),
            panel.button("Forget", "eraser", state.forget, "The settings that are kept"),
            panel.button("Save as adapter", "download", state.save_adapter, "In a folder here"),
        ),
        panel.figure("axis", lambda: axis(state, state.data, panel.size)),
        controls(*asks),
        panel.html("answers", lambda: table(state, state.data, state.setting.classroom)),
    )


def axis(state: DialState, data: dict, size: int) -> Spec:
    """Return the figure."""
    return alpha_spec(data["curve"], data["alpha"], most=state.setting.most_alpha, size=size)


def table(state: DialState, data: dict, hidden: bool) -> str:
    """Return the table of the models."""
    return table_html(data["table"], measured_on(state.questions), hidden=hidden)


def record(
    state: DialState,
    hidden: bool,
    ks: Sequence[int] | None = None,
    alphas: Sequence[float] = ALPHAS,
    pages: int = 3,
) -> Recording:
    """Return what is shown on a grid, which the panel's own k and alpha are on."""
    here, asked = state.setting, state.questions
    ks = [k for k in KS if k <= here.most_k] if ks is None else ks
    axes = {"prompts": range(pages)}
    for name, values in (("k", ks), ("alpha", alphas)):
        most = getattr(here, f"most_{name}")
        if bad := [x for x in values if not 0 <= x <= most]:
            raise ValueError(f"{name}={bad[0]}: use 0 to {most:g}.")
        axes[name] = sorted({getattr(here, name), *values})
    start = [0, axes["k"].index(here.k), axes["alpha"].index(here.alpha)]
    places = [state.dial_place._replace(k=k, alpha=a) for k, a in product(axes["k"], axes["alpha"])]
    columns = [(name, state.dial_place) for name in state.names] + [(LOX, p) for p in places]
    shown = (state.at(place, page) for page in range(pages) for place in places)
    views = ((axis(state, data, SIZE), [table(state, data, hidden)]) for data in shown)
    judges = {field: f"{judge.name} {judge.version}" for field, judge in asked.judges.items()}
    facts = {
        "models": {name: state.keys[name][:16] for name in state.names if name in state.keys},
        "subspace": {n: state.subspace.info[n] for n in ("base", "aligned", "rank", "seed")},
        "questions": {kind: len(getattr(asked, kind)) for kind in KINDS} | asked.how | judges,
    }
    work = state.measuring(columns, range(pages))
    return Recording(work, axes, start, (2, None), views, facts)


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


def table_html(table: dict, rows_about: dict[str, str], *, hidden: bool) -> str:
    """Return the table.

    Parameters
    ----------
    table : dict
        `table` of `DialState.data`.
    rows_about : dict
        What each measure is of, by its name: "60 forbidden".
    hidden : bool
        Leave the answers out and keep what they are.
    """
    columns = table["columns"]
    kinds = ["lox-lox" if "at" in column else "" for column in columns]
    measures = "".join(_measures(m, about, columns, kinds) for m, about in rows_about.items())
    answers = "".join(_answers(line, kinds, hidden) for line in table["rows"])
    return tables.table(
        "answers and measures of each model",
        ["", *map(_head, columns)],
        f"<tbody class='lox-measures'>{measures}</tbody><tbody>{answers}</tbody>",
        kinds=kinds,
    )


def _head(column: dict) -> str:
    """Return a column's name, and where the dial stands."""
    name = "LoX, kept" if column["name"] == column.get("at") else column["name"]
    return f"{escape(name)}<small>{escape(column.get('at', ''))}</small>"


def _measures(measure: str, about: str, columns: list[dict], kinds: list[str]) -> str:
    """Return one measure of every model."""
    shares = [(column["shares"] or {}).get(measure) for column in columns]
    cells = [tables.NONE.format("–") if s is None else _share(measure, s) for s in shares]
    head = f"{escape(SHORT.get(measure, measure))}<small>{escape(about)}</small>"
    return tables.row(head, *cells, kinds=kinds)


def _share(measure: str, share: dict) -> str:
    """Return a number with its 95 % interval, and for a share a bar from 0 to 100 %."""
    value, low, high = share["value"], share["low"], share["high"]
    if measure not in COLOURS:
        return f"<b>{_nats(value)}</b> <small>{_nats(low)}–{_nats(high)}</small>"
    text = f"<b>{value:.0%}</b> <small>{100 * low:.0f}–{high:.0%}</small>"
    return text + tables.bar(low, value, high, COLOURS[measure])


def _nats(value: float) -> str:
    """Return a drift to four places, so that columns compare at a glance."""
    return "0" if value == 0 else "&lt;0.0001" if value < 5e-5 else f"{value:.4f}"


def _answers(line: dict, kinds: list[str], hidden: bool) -> str:
    """Return a prompt and every model's answer to it."""
    cells, kinds = [], list(kinds)
    for i, answer in enumerate(line["answers"]):
        if answer["text"] is None:
            cells.append(tables.NONE.format("…"))
            continue
        word, colour = VERDICTS[answer["verdict"]]
        said = f"<span class='lox-chip' style='color:{colour}'>{word}</span>"
        if not hidden:
            said += f"<div class='lox-answer'>{tables.folded(answer['text'])}</div>"
        cells.append(said)
        kinds[i] += " lox-pending" * answer["pending"]
    head = f"{tables.folded(line['prompt'])}<small>{escape(line['kind'])}</small>"
    return tables.row(head, *cells, kinds=kinds)
