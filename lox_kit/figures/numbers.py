"""A figure's numbers as a table, for the .csv beside it: one row for each that was measured."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from lox_kit.studies import AttackTable


def frame(data: dict):
    """Return what was measured for a figure as a DataFrame.

    A share has value, low, high (its 95 % interval), and count and n where they are known. Columns
    before them name it; nothing in k is all directions, in r the aligned model, and in attack
    before any.
    """
    import pandas as pd

    return pd.DataFrame(_ROWS.get(data["figure"], _shares)(data)).convert_dtypes()


def _shares(data: dict) -> Iterator[dict]:
    """Yield the shares of a study's rows."""
    yield from AttackTable(tuple(data["rows"]), {}).entries().to_dict("records")


def _eroded(data: dict) -> Iterator[dict]:
    """Yield R of every attacked model at each k, then the shares."""
    for row in data["rows"]:
        names = {n: v for n, v in row.items() if n not in ("R", "measures")}
        for k, (align, after) in row["R"].items():
            yield {**names, "k": int(k), "r_align": align, "r_ft": after}
    yield from _shares(data)


def _points(points: list[dict], **names) -> Iterator[dict]:
    """Yield the shares of points along a curve, measured or plain."""
    for point in points:
        at = {n: v for n, v in point.items() if not isinstance(v, dict)}
        for measure, value in (point | point.get("measures", {})).items():
            if isinstance(value, dict) and "low" in value:  # a number with its interval
                yield {**names, **at, "measure": measure, **value}


def _spectrum(data: dict) -> Iterator[dict]:
    """Yield the energy of every matrix, then the singular values of those that are drawn."""
    for name, energy in data.get("energy", {}).items():
        yield {"name": name, "k": data["k"], "energy": energy}
    for layer in data.get("layers", ()):
        names = {n: layer[n] for n in ("name", "norm", "noise_edge")}
        yield from ({**names, "direction": i, "S": s} for i, s in enumerate(layer["S"], 1))


def _epochs(data: dict) -> Iterator[dict]:
    """Yield the shares along every line of an attack."""
    for line in data["lines"]:
        names = {n: v for n, v in line.items() if n != "points"}
        yield from _points(line["points"], attack=data["attack"], **names)


def _attack_lab(data: dict) -> Iterator[dict]:
    """Yield losses and shares of every run."""
    for run in data["runs"]:
        names = {n: v for n, v in run.items() if n != "arms"}
        for arm, way in run["arms"].items():
            for step, loss in enumerate(way["losses"], 1):
                yield {**names, "arm": arm, "step": step, "measure": "loss", "value": loss}
            yield from _points(way["points"], **names, arm=arm)


def _rank_and_r(data: dict) -> Iterator[dict]:
    """Yield the shares of the rank curve, and R of every matrix."""
    yield from _shares(data)
    for layer in data["layers"]:
        every = {"the alignment": layer["r_align"], **layer["r_ft"]}
        yield from ({"name": layer["name"], "r_of": of, "value": r} for of, r in every.items())


def _landscape(data: dict) -> Iterator[dict]:
    """Yield every cell that was measured."""
    places = [[i * g["step"] for i in range(g["first"], g["last"] + 1)] for g in data["grid"]]
    cells = (value for row in data["values"] for value in row)
    for at, value in zip(product(*places), cells, strict=True):
        if value is not None:
            yield {**dict(zip(data["axes"], at, strict=True)), data["metric"]: value}


def _flatness(data: dict) -> Iterator[dict]:
    """Yield every place of every line."""
    for panel in data["panels"]:
        for model, lines in panel["curves"].items():
            for i, line in enumerate(lines):
                names = {"line": panel["title"], "model": model, "direction": i}
                pairs = zip(panel["places"], line, strict=True)
                yield from ({**names, "place": at, "value": value} for at, value in pairs)


def _overlaps(data: dict) -> Iterator[dict]:
    """Yield the overlap of every change, and of each of its matrices."""
    for row in data["rows"]:
        names = {n: v for n, v in row.items() if n not in ("layers", "measures")}
        yield {**names, "name": "all"}
        for name, share, chance in row["layers"]:
            yield {**names, "name": name, "share": share, "chance": chance, "gained": None}


def _interval(data: dict) -> Iterator[dict]:
    """Yield every rate's interval."""
    for band in data["bands"]:
        ends = zip(band["value"], band["interval"], strict=True)
        yield from ({"n": band["n"], "value": x, "low": a, "high": b} for x, (a, b) in ends)


_ROWS = {
    "pipeline": lambda data: [{"k": data["k"], "alpha": data["alpha"]}],
    "spectrum": _spectrum,
    "energy_map": _spectrum,
    "explorer": _spectrum,
    "alpha": lambda data: _points(data["points"], k=data["k"]),
    "choice": lambda data: _points(data["points"]),
    "epochs": _epochs,
    "attack_lab": _attack_lab,
    "rank_and_r": _rank_and_r,
    "retained": _eroded,
    "r_bars": _eroded,
    "judges": lambda data: ({"measure": n, **share} for n, share in data["shares"].items()),
    "interval": _interval,
    "landscape_map": _landscape,
    "landscape_3d": _landscape,
    "flatness": _flatness,
    "overlaps": _overlaps,
}
