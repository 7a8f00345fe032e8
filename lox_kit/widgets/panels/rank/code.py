"""Calls that reproduce what the rank panel shows, as text to copy into a script."""

from __future__ import annotations

from lox_kit.studies import checkpoint_of
from lox_kit.widgets.code import pair_call, questions_lines, script

CURVE_FILE = "rank_curve.json"


def rank_code(state) -> str:
    """Return the calls: the ranks measured so far, R_ft of the attacks measured so far, the figure.

    Parameters
    ----------
    state : RankState

    Raises
    ------
    ValueError
        If the subspace is a control: `from_pair` does not make it.
    """
    info, k = state.subspace.info, state.setting.k
    places = {name: str(checkpoint_of(state.attacked[name])) for name in state.r_ft}
    attacked = "".join(f"    {name!r}: {place!r},\n" for name, place in places.items())
    return script(f"""subspace = {pair_call(info)}
{_curve(state)}attacked = {{
{attacked}}}
r_ft = {{
    name: subspace.r_ft_curve({str(info["base"])!r}, folder, most={k})
    for name, folder in attacked.items()
}}
data = figures.rank_and_r_data(subspace, curve, r_ft, k={k}, kind={state.kind!r})
figures.save_figure(data, {state.figure_name!r})
""")


def _curve(state) -> str:
    """Return the lines that make the curve as far as it is measured."""
    if state.given:
        return f"curve = RankCurve.load({CURVE_FILE!r})  # written by curve.save({CURVE_FILE!r})\n"
    ranks = [row["r"] for row in state.curve.rows if row["r"] is not None] if state.curve else []
    if not ranks:
        return "curve = None  # not measured yet\n"
    pair = ", ".join(repr(str(state.subspace.info[name])) for name in ("base", "aligned"))
    return f"""{questions_lines(state.questions)}curve = rank_curve(
    {pair}, questions, ranks={ranks}, subspace=subspace
)
"""
