"""The path of a fine-tuning on a plane: its checkpoints projected, and how much that leaves out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .directions import Source, between, norm, weights_of
from .flat import Flat
from .walk import check_origin


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Checkpoints of one run on a plane, in order."""

    name: str
    at: tuple[tuple[float, ...], ...]  # one point per checkpoint
    distances: tuple[float, ...]  # of each from the plane, L2
    length: float  # L2, along the checkpoints
    explained: float  # share of that length that lies in the plane, in [0, 1]

    def to_dict(self) -> dict:
        """Return the numbers as plain data."""
        return dataclasses.asdict(self)


def project(
    flat: Flat, origin: Source, checkpoints: Sequence[Source], name: str = "fine-tuning"
) -> Trajectory:
    """Project the checkpoints of a run on a plane.

    The share of the length that the plane explains is `sum |P(w_t+1 - w_t)| / sum |w_t+1 - w_t|`
    over all weights. One tensor of two checkpoints is in memory at a time; sums are in float64.

    Parameters
    ----------
    flat : Plane or Line
        With axes in L2.
    origin : Model, checkpoint folder or sandbox name
        The plane's origin.
    checkpoints : sequence of the same
        In order, the model that the run began with first; at least two.

    Raises
    ------
    ValueError
        If there are fewer than two, the origin is not the plane's, a checkpoint has other weights,
        or the plane's axes are not distances.
    """
    start, *path = (weights_of(m) for m in (origin, *checkpoints))
    check_origin(start, flat)
    if len(path) < 2:
        raise ValueError(f"{len(path)} checkpoint: a path needs at least two.")
    points = [flat.locate(between(start, weights)) for weights in path]
    within = np.linalg.norm(np.diff([p.at for p in points], axis=0), axis=1).sum()
    length = sum(norm(between(*step)) for step in pairwise(path))
    return Trajectory(
        name,
        tuple(p.at for p in points),
        tuple(p.distance for p in points),
        length,
        float(within / length) if length else 0.0,
    )
