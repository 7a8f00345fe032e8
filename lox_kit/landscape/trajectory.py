"""The way a fine-tuning took, seen on a plane: its checkpoints projected, and what is missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from .directions import Source, check_shape, part_dot, weights_of
from .flat import Flat


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
    over all weights. One tensor of all checkpoints is in memory at a time; sums are in float64.

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
    if flat.unit != "L2":
        raise ValueError("this plane's axes are no distances: lengths on it mean nothing.")
    start, *path = [weights_of(m) for m in (origin, *checkpoints)]
    if start.key != flat.origin_key:
        raise ValueError(f"{start.name} is not the origin of this plane, {flat.origin_name}.")
    if len(path) < 2:
        raise ValueError(f"{len(path)} checkpoint: a way needs at least two.")
    D = flat.directions
    gram, dots = np.zeros((len(D), len(D))), np.zeros((len(path), len(D)))
    squares, steps = np.zeros(len(path)), np.zeros(len(path) - 1)
    for tensor in start.tensors:
        W0 = start.read(tensor).double()
        parts = [d.parts.get(tensor) for d in D]
        last = None
        for t, weights in enumerate(path):
            check_shape(weights, tensor, W0.shape, "the plane")
            delta = weights.read(tensor).double().to(W0.device) - W0
            squares[t] += part_dot(delta, delta)
            dots[t] += [0.0 if p is None else part_dot(delta, p) for p in parts]
            if last is not None:
                steps[t - 1] += part_dot(delta - last, delta - last)
            last = delta
        gram += [[0.0 if None in (p, q) else part_dot(p, q) for q in parts] for p in parts]
    at = np.array([flat.coordinates(tuple(c)) for c in np.linalg.solve(gram, dots.T).T])
    lengths = np.sqrt(steps)
    within = np.linalg.norm(np.diff(at, axis=0), axis=1)
    off = np.sqrt(np.maximum(squares - (at**2).sum(1), 0.0))
    return Trajectory(
        name,
        tuple(tuple(map(float, point)) for point in at),
        tuple(map(float, off)),
        float(lengths.sum()),
        float(within.sum() / lengths.sum()) if lengths.sum() else 0.0,
    )
