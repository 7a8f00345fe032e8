"""What the figures of rank and R are drawn from, on paper and on screen: plain data of one pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lox_kit.extrapolation import SafetySubspace, map_layout
from lox_kit.studies import RankCurve
from lox_kit.text import plain_numbers

ALL = "all"


def rank_and_r_data(
    subspace: SafetySubspace,
    curve: RankCurve | None,
    r_ft: Mapping[str, np.ndarray],
    *,
    k: int,
    kind: str = ALL,
) -> dict:
    """Return what `figure_rank_and_r` and `figures.plotly.rank_spec` are drawn from.

    Parameters
    ----------
    curve : RankCurve, optional
        Of this pair alone, as far as it has been measured.
    r_ft : mapping of attack to array (n_layers, at least k + 1)
        From `SafetySubspace.r_ft_curve`.
    k : int
        Directions in R_align and R_ft.
    kind : str
        "all", or one kind of matrix: `kinds_shown(subspace)` lists them.

    Returns
    -------
    dict
        `layers` has R of every matrix shown, with its kind and its place on the axis; `ticks` what
        is at the places of that axis. `lines` has R_align (attack None) and every R_ft as numbers
        at all places, None where there is none: of each kind, and their median.

    Raises
    ------
    ValueError
        If `k` is not stored or an R_ft does not go so far, there is no such kind, or the curve is
        of several pairs.
    """
    kinds = kinds_shown(subspace)
    if kind not in kinds:
        raise ValueError(f"kind={kind!r}: use one of {', '.join(kinds)}.")
    if curve and len(curve.pairs) > 1:
        raise ValueError(
            f"the curve is of {len(curve.pairs)} pairs ({', '.join(curve.pairs)}) and this figure "
            "of one: draw them with figure_rank_curve, or measure one with rank_curve."
        )
    for name, values in r_ft.items():
        if k >= values.shape[1]:
            raise ValueError(
                f"k={k}: the R_ft of {name} go to k={values.shape[1] - 1}: measure them with "
                f"most={k}."
            )
    ticks, layers = _layers(subspace, r_ft, k)
    shown = [x for x in layers if kind in (ALL, x["kind"])]
    rows = [{"r": row["r"], "measures": row["measures"]} for row in curve.rows] if curve else []
    aligned_known = any(row["r"] is None for row in rows)
    return {
        "figure": "rank_and_r",
        "pair": [str(subspace.info[n]) for n in ("base", "aligned")],
        "k": k,
        "kind": kind,
        "rows": rows,
        "safety_rank": curve.safety_rank(curve.pairs[0]) if aligned_known else None,
        "layers": shown,
        "ticks": ticks,
        "lines": [_line(shown, attack, max(ticks.values()) + 1) for attack in (None, *r_ft)],
        "ratios": {name: _ratios(shown, name) for name in r_ft},
    }


def kinds_shown(names: Sequence[str]) -> list[str]:
    """Return "all", and the kinds of these matrices: a column, or what is outside the layers."""
    return list(dict.fromkeys([ALL, *(kind for _, kind, _ in in_layers(names))]))


def in_layers(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return each matrix's name, kind and layer, in the order of the energy map.

    A matrix outside the layers is its own kind, and in a layer of that name.
    """
    found = []
    for rows, columns, heads in map_layout(names):
        for row, head in zip(rows, heads, strict=True):
            for name, column in zip(row, columns, strict=True):
                if name:
                    found.append((name, head if columns == ["outside"] else column, head))
    return found


def _layers(
    subspace: SafetySubspace, r_ft: Mapping[str, np.ndarray], k: int
) -> tuple[dict[str, int], list[dict]]:
    """Return the places of the layers, and R of every matrix at one k with its kind and place."""
    found, r_align = in_layers(list(subspace)), subspace.r_align(k)
    depths = dict.fromkeys(layer for _, kind, layer in found if kind != layer)
    ticks = {layer: i for i, layer in enumerate(depths)}
    apart = 2 + len(depths) // 8  # room for the names of what is outside, which no line joins
    for i, outside in enumerate(layer for _, kind, layer in found if kind == layer):
        ticks[outside] = len(depths) - 1 + apart * (i + 1)
    at = {name: i for i, name in enumerate(subspace)}
    return ticks, [
        {
            "name": name,
            "kind": kind,
            "place": ticks[layer],
            "r_align": plain_numbers(r_align[at[name]]),
            "r_ft": {attack: plain_numbers(values[at[name], k]) for attack, values in r_ft.items()},
        }
        for name, kind, layer in found
    ]


def _line(layers: list[dict], attack: str | None, n: int) -> dict:
    """Return R at n places: of each kind, and the median of all."""
    kinds = {layer["kind"]: [None] * n for layer in layers}
    at: list[list[float]] = [[] for _ in range(n)]
    for layer in layers:
        r = layer["r_align"] if attack is None else layer["r_ft"][attack]
        kinds[layer["kind"]][layer["place"]] = r
        at[layer["place"]].append(r)
    median = [plain_numbers(np.median(values)) if values else None for values in at]
    return {"attack": attack, "kinds": kinds, "median": median}


def _ratios(layers: list[dict], attack: str) -> dict | None:
    """Return median, quartiles and ends of R_ft / R_align; None where no matrix has an R_align."""
    found = {x["name"]: x["r_ft"][attack] / x["r_align"] for x in layers if x["r_align"]}
    if not found:
        return None
    low, median, high = plain_numbers(np.percentile(list(found.values()), [25, 50, 75]))
    names = {"least": min(found, key=found.get), "most": max(found, key=found.get)}
    ends = {end: [name, plain_numbers(found[name])] for end, name in names.items()}
    return {"median": median, "low": low, "high": high, **ends, "n": len(found)}


def place(r: float) -> float:
    """Return where a rank stands on its axis: log2(1 + r), so that the small ones have room."""
    return float(np.log2(1 + r))


def ticks_shown(data: dict) -> dict[int, str]:
    """Return what the axis of layers says, and where: about a dozen depths, and all outside."""
    depths = [layer for layer in data["ticks"] if layer.isdigit()]
    shown = [layer for layer in data["ticks"] if not layer.isdigit()]
    shown += depths[:: max(1, round(len(depths) / 12))]
    return {data["ticks"][layer]: layer.removesuffix("_tokens") for layer in shown}


def rank_curve_points(data: dict) -> tuple[list[dict], dict, list[dict]]:
    """Return the points of the rank curve, the aligned measures, and the safety rank's point."""
    rows = sorted((row for row in data["rows"] if row["r"] is not None), key=lambda p: p["r"])
    points = [{**row, "place": place(row["r"])} for row in rows]
    aligned = next((row["measures"] for row in data["rows"] if row["r"] is None), {})
    return points, aligned, [p for p in points if p["r"] == data["safety_rank"]]
