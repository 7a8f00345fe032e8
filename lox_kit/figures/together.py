"""Recorded runs laid over each other: one figure of several figures' data."""

from __future__ import annotations

from collections.abc import Mapping

RUNS = {  # what a figure lists, and by which name a run is told apart there
    "attack_table": ("rows", "arm"),
    "defences": ("rows", "arm"),
    "rank_curve": ("rows", "pair"),
    "epochs": ("lines", "model"),
    "attack_lab": ("runs", None),
}


def overlay(runs: Mapping[str, dict]) -> dict:
    """Return the data of one figure that shows all of these.

    Parameters
    ----------
    runs : mapping of name to data
        Figures of one kind. What is alike in them is told apart by the run's name, but for the
        runs of the attack lab, whose legend says what each was.

    Raises
    ------
    ValueError
        If they are of several kinds, or of one of which no two can be drawn together.
    """
    first = next(iter(runs.values()))
    if len(runs) == 1:
        return first
    kinds = dict.fromkeys(data.get("figure") for data in runs.values())
    if len(kinds) > 1 or first.get("figure") not in RUNS:
        raise ValueError(
            f"{', '.join(runs)} are figures of {', '.join(map(str, kinds))}: only several of one "
            f"kind can be laid over each other, and only {', '.join(RUNS)}."
        )
    what, name = RUNS[first["figure"]]
    rows = [
        row | ({name: f"{row[name]}, {run}"} if name else {})
        for run, data in runs.items()
        for row in data[what]
    ]
    data = {key: value for key, value in first.items() if key != "made"} | {what: rows}
    data["source"] = {run: each.get("source") for run, each in runs.items()}
    if "safety_rank" in first:
        found = ((run, each["safety_rank"]) for run, each in runs.items())
        data["safety_rank"] = {f"{p}, {run}": r for run, ranks in found for p, r in ranks.items()}
    return data
