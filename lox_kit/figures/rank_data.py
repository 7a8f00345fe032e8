"""What the figures of rank and R are drawn from, on paper and on screen: plain data of one pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lox_kit.extrapolation import SafetySubspace, map_layout
from lox_kit.studies import RankCurve
from lox_kit.text import plain_numbers

ALL = "all"
APART = 0.13  # of the layers: between the last one and what is outside them


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

    Raises
    ------
    ValueError
        If `k` is not stored or an R_ft does not go so far, there is no such kind, or the curve is
        of several pairs.
    """
    kinds = kinds_shown(subspace)
    if kind not in kinds:
        raise ValueError(f"kind={kind!r}: use one of {', '.join(kinds)}.")
    check_pairs(curve)
    for name, values in r_ft.items():
        if k >= values.shape[1]:
            raise ValueError(
                f"k={k}: the R_ft of {name} go to k={values.shape[1] - 1}: measure them with "
                f"most={k}."
            )
    layers = _layers(subspace, r_ft, k)
    shown = [x for x in layers if kind in (ALL, x["kind"])]
    rows = [{"r": row["r"], "measures": row["measures"]} for row in curve.rows] if curve else []
    return {
        "figure": "rank_and_r",
        "pair": [str(subspace.info[n]) for n in ("base", "aligned")],
        "k": k,
        "kind": kind,
        "rows": rows,
        "safety_rank": _safety_rank(curve),
        "depths": sorted({x["depth"] for x in layers} - {None}),
        "outside": [x["kind"] for x in layers if x["depth"] is None],
        "layers": shown,
        "ratios": {name: _ratios(shown, name) for name in r_ft},
    }


def check_pairs(curve: RankCurve | None) -> None:
    """Raise ValueError if a curve is of several pairs."""
    if curve and len(curve.pairs) > 1:
        raise ValueError(
            f"the curve is of {len(curve.pairs)} pairs ({', '.join(curve.pairs)}) and this figure "
            "of one: draw them with figure_rank_curve, or measure one with rank_curve."
        )


def kinds_shown(names: Sequence[str]) -> list[str]:
    """Return "all", and the kinds of these matrices: a column, or what is outside the layers."""
    return list(dict.fromkeys([ALL, *(kind for _, kind, _ in _places(names))]))


def _places(names: Sequence[str]) -> list[tuple[str, str, int | None]]:
    """Return each matrix's name, kind and depth, in the order of the energy map."""
    found = []
    for rows, columns, heads in map_layout(names):
        outside = columns == ["outside"]
        for row, head in zip(rows, heads, strict=True):
            for name, column in zip(row, columns, strict=True):
                if name:
                    place = (head, None) if outside else (column, int(head))
                    found.append((name, *place))
    return found


def _layers(subspace: SafetySubspace, r_ft: Mapping[str, np.ndarray], k: int) -> list[dict]:
    """Return R of every matrix at one k, with its kind and depth."""
    at = {name: i for i, name in enumerate(subspace)}
    r_align = subspace.r_align(k)
    return [
        {
            "name": name,
            "kind": kind,
            "depth": depth,
            "r_align": plain_numbers(r_align[at[name]]),
            "r_ft": {attack: plain_numbers(values[at[name], k]) for attack, values in r_ft.items()},
        }
        for name, kind, depth in _places(list(subspace))
    ]


def _safety_rank(curve: RankCurve | None) -> int | None:
    """Return the safety rank as far as it is known."""
    if not curve or None not in {row["r"] for row in curve.rows}:
        return None
    return curve.safety_rank(curve.pairs[0])


def _ratios(layers: list[dict], attack: str) -> dict | None:
    """Return median, quartiles and ends of R_ft / R_align; None where no matrix has an R_align."""
    found = {x["name"]: x["r_ft"][attack] / x["r_align"] for x in layers if x["r_align"]}
    if not found:
        return None
    low, median, high = np.percentile(list(found.values()), [25, 50, 75])
    ends = {word: pick(found, key=found.get) for word, pick in (("least", min), ("most", max))}
    return {
        "median": plain_numbers(median),
        "low": plain_numbers(low),
        "high": plain_numbers(high),
        **{word: [name, plain_numbers(found[name])] for word, name in ends.items()},
        "n": len(found),
    }


def place(r: float) -> float:
    """Return where a rank stands on its axis: log2(1 + r), so that the small ones have room."""
    return float(np.log2(1 + r))


def layer_place(data: dict, layer: dict) -> float:
    """Return where a matrix stands on the axis of layers; what is outside comes after them."""
    if layer["depth"] is not None:
        return layer["depth"]
    step = max(1.4, APART * len(data["depths"]))
    return max(data["depths"], default=-1) + step * (1 + data["outside"].index(layer["kind"]))


def layer_ticks(data: dict) -> dict[float, str]:
    """Return what the axis of layers says, and where: about a dozen depths, and all outside."""
    every = max(1, round(len(data["depths"]) / 12))
    ticks = {float(d): str(d) for d in data["depths"][::every]}
    for kind in data["outside"]:
        label = kind.replace("_tokens", "")
        ticks[layer_place(data, {"depth": None, "kind": kind})] = label
    return ticks


def r_of(layer: dict, attack: str | None) -> float:
    """Return a matrix's R_ft after an attack, or its R_align."""
    return layer["r_align"] if attack is None else layer["r_ft"][attack]


def r_line(data: dict, attack: str | None) -> tuple[list, list]:
    """Return x and y of R along the layers, the median where several kinds are shown.

    What is outside the layers is not joined to them: None stands between.
    """
    found: dict[tuple, list[float]] = {}
    for layer in data["layers"]:
        key = (layer["depth"] is None, layer_place(data, layer))
        found.setdefault(key, []).append(r_of(layer, attack))
    x, y = [], []
    for (outside, at), values in sorted(found.items()):
        x += [None, at] if outside else [at]
        y += [None] * outside + [plain_numbers(np.median(values))]
    return x, y


def r_threads(data: dict, attack: str | None) -> tuple[list, list, list]:
    """Return x, y and names of each kind's own line, parted by None; none if it is alone."""
    points: list[tuple] = []
    kinds = dict.fromkeys(x["kind"] for x in data["layers"]) if data["kind"] == ALL else ()
    for kind in kinds:
        points += sorted(
            (layer_place(data, layer), r_of(layer, attack), layer["name"])
            for layer in data["layers"]
            if layer["kind"] == kind and layer["depth"] is not None
        )
        points.append((None, None, ""))
    return tuple([p[i] for p in points] for i in range(3))
