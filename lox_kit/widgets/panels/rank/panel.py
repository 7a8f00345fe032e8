"""Panel 5, rank and R: how many directions safety needs, and what an attack leaves of them.

Below the figure: the safety rank, and R_ft / R_align. What a person wrote is escaped.
"""

from __future__ import annotations

from html import escape

import ipywidgets

from lox_kit.figures import attack_style
from lox_kit.figures.plotly import Spec, rank_spec
from lox_kit.studies import MARGIN
from lox_kit.widgets.shell import Panel, opens
from lox_kit.widgets.tables import NONE, bar, row, table

from .state import RankState

QUESTION = "How many directions does safety need, and how much of them does an attack leave?"


@opens(RankState)
def rank(*arguments, **options) -> Panel:
    """Open the panel of rank and R: ASR and helpfulness against rank, R_align and R_ft by layer.

    **Run** loads base and aligned by the names the subspace knows them under, one at a time, and
    streams the attacked checkpoints; it moves nothing that another panel holds.

    Parameters
    ----------
    subspace : SafetySubspace
    attacked : mapping of str to AttackRun, path or name, optional
        Checkpoints whose R_ft is shown, by their titles.
    questions : Questions, optional
        What is measured, of both kinds; see `rank_curve` for helpfulness. Default
        `Questions.default`, in the sandbox with 120 prompts of each kind.
    ranks : sequence of int, optional
        Default the paper's 0, 1, 2, 3, 4, 6, 8, and 16 and 32, as far as they are stored.
    store : Store, optional
        Keeps answers, rows and R beyond the session; what it has is shown at once.
    setting : Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If an attacked checkpoint does not fit the subspace or is a model in memory, only one kind
        of prompts is given, or a rank is not stored.
    """
    state = RankState(*arguments, **options)
    panel = Panel("Rank and R", QUESTION, state)

    def spec() -> Spec:
        most = state.setting.most_k  # the axis is as wide as the slider goes
        return rank_spec(state.data, panel.size, ranks=state.ranks, most=most)

    kind = ipywidgets.Dropdown(options=state.kinds, description="matrices")
    return panel.fill(
        panel.runs(
            panel.button("Run", "play", state.run, "Measure what is missing, one model at a time"),
            *panel.sliders("k"),
            panel.control("kind", kind),
        ),
        panel.html("note", lambda: escape(state.note)),
        panel.figure("rank", spec),
        panel.html("found", lambda: escape(safety_rank_text(state.data, state.ranks))),
        panel.html("ratios", lambda: ratios_html(state.data, list(state.attacked))),
    )


def safety_rank_text(data: dict, ranks: tuple[int, ...]) -> str:
    """Return a sentence on the safety rank as far as it is known, not yet escaped.

    Parameters
    ----------
    data : dict
        `RankState.data`.
    ranks : tuple of int
        All that are going to be measured.
    """
    points = {row["r"]: row["measures"] for row in data["rows"]}
    if not points:
        return ""
    if None not in points:
        return "Safety rank: not known before the aligned model is measured."
    level = points[None]["asr"]
    than = f"less than {100 * MARGIN:g} point above the aligned model's {_of(level)}"
    found = data["safety_rank"]
    if found is None:
        waiting = [r for r in ranks if r not in points]
        words = "not found so far" if waiting else f"above {max(ranks)}"
        return f"Safety rank: {words}. It is the smallest r measured whose ASR is {than}."
    helped = points[found].get("helpfulness")
    price = f" Help with allowed requests there: {_of(helped)}." if helped else ""
    one = f" With n = {level['n']} a single answer is {100 / level['n']:.1f} points."
    return (
        f"Safety rank {found}: the smallest r measured whose ASR is {than}."
        f"{price}{one if 1 / level['n'] > MARGIN else ''}"
    )


def _of(share: dict) -> str:
    """Return a share with its count and interval."""
    low, high = f"{100 * share['low']:.0f}", f"{share['high']:.0%}"
    return f"{share['value']:.0%} ({share['count']} of {share['n']}, {low}–{high})"


def ratios_html(data: dict, attacks: list[str]) -> str:
    """Return the table of R_ft / R_align, one line an attack.

    Parameters
    ----------
    attacks : list of str
        All of them; those that are not in the data yet say so.
    """
    if not attacks:
        return ""
    scale = max([1.0, *(ratio["most"][1] for ratio in data["ratios"].values() if ratio)])
    lines = "".join(_line(data, name, scale) for name in attacks)
    kind = "all matrices" if data["kind"] == "all" else escape(data["kind"])
    ratio = "R<sub>ft</sub> / R<sub>align</sub>"
    numbers = sorted({str(ratio["n"]) for ratio in data["ratios"].values() if ratio})
    counted = f" (n = {', '.join(numbers)})" if numbers else ""
    return table(
        "how much of each attacked model lies in the safety subspace",
        ("", f"{ratio} at k = {data['k']}, {kind}", "least left", "most left"),
        f"<tbody>{lines}</tbody>",
        about=(
            f"{ratio} = 1: of W − W<sub>base</sub>, the attacked model has as large a share in the "
            "top k directions as the aligned one; of an attacked LoX model that share includes "
            f"what LoX had added. Median, and quartiles over the matrices{counted}."
        ),
    )


def _line(data: dict, name: str, scale: float) -> str:
    """Return one attack's line."""
    ratio = data["ratios"].get(name)
    if ratio is None:
        missing = "no direction, no ratio" if name in data["ratios"] else "not measured"
        return row(escape(name), NONE.format(missing), "", "")
    median, low, high = (ratio[n] for n in ("median", "low", "high"))
    colour = attack_style(list(data["ratios"]).index(name))["color"]
    value = f"<b>{median:.2f}</b> <small>{low:.2f}–{high:.2f}</small>"
    value += bar(low / scale, median / scale, high / scale, colour)
    ends = [
        f"{at:.2f}<small>{escape(matrix.removesuffix('.weight').removeprefix('model.'))}</small>"
        for matrix, at in (ratio["least"], ratio["most"])
    ]
    return row(escape(name), value, *ends)
