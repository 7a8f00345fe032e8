"""Calls that reproduce what the rank panel shows, as text to copy into a script."""

from __future__ import annotations

from lox_kit.studies import checkpoint_of
from lox_kit.widgets.code import judge_name, prompts_call, subspace_code

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
    info = state.subspace.info
    pair = f"{str(info['base'])!r}, {str(info['aligned'])!r}"
    names, curve, imports = _curve(state, pair)
    places = {name: str(checkpoint_of(state.attacked[name])) for name in state.r_ft}
    top, made = subspace_code(state.subspace, *names, "figures").split("\n\n", 1)
    attacked = "".join(f"    {name!r}: {place!r},\n" for name, place in places.items())
    return f"""{top}
{imports}
{made}{curve}attacked = {{
{attacked}}}
r_ft = {{
    name: subspace.r_ft_curve({str(info["base"])!r}, folder, most={state.setting.k})
    for name, folder in attacked.items()
}}
data = figures.rank_and_r_data(subspace, curve, r_ft, k={state.setting.k}, kind={state.kind!r})
figures.save_figure(data, {state.figure_name!r})
"""


def _curve(state, pair: str) -> tuple[list[str], str, str]:
    """Return what lox_kit is asked for, the calls that make the curve, and their imports."""
    if state.given:
        call = f"curve = RankCurve.load({CURVE_FILE!r})  # written by curve.save({CURVE_FILE!r})\n"
        return [], call, "from lox_kit.studies import RankCurve\n"
    ranks = [row["r"] for row in state.curve.rows if row["r"] is not None] if state.curve else []
    if not ranks:
        return [], "curve = None  # not measured yet\n", ""
    options = state.options
    kinds = {"forbidden": state.forbidden, "allowed": options["allowed"]}
    imports = "from lox_kit.studies import rank_curve\n"
    own = state.own_prompts
    names = ["sandbox_prompts"] * own
    if not own:
        imports = "from lox_kit.models import Prompt\n" + imports
    prompts = [f"{kind} = {prompts_call(kind, p, own=own)}\n" for kind, p in kinds.items()]
    call = f"""curve = rank_curve(
    {pair},
    forbidden,
    allowed=allowed,
    ranks={ranks},
    judge={judge_name(options["judge"])!r},
    subspace=subspace,
    template={options["template"]!r},
    max_new_tokens={options["max_new_tokens"]},
)
"""
    return names, "".join(prompts) + call, imports
