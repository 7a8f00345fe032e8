"""Panel 5, rank and R: how many directions safety needs, and what an attack leaves of them."""

from __future__ import annotations

from html import escape

import ipywidgets

from lox_kit.figures.plotly import Spec, rank_spec
from lox_kit.widgets.shell import Panel, opens

from .state import RankState
from .table import ratios_html, safety_rank_text

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
