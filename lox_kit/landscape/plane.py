"""The planes and lines of the landscape, and the path of a fine-tuning on one of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .directions import (
    Direction,
    Source,
    Weights,
    between,
    check_shape,
    check_shapes,
    combine,
    dot,
    minus,
    norm,
    products,
    random_direction,
    weights_of,
)
from .flat import UNITS, Flat, Point, check_origin

PARALLEL = 1e-6  # of its length: less of the second direction off the first is rounding


class Plane(Flat):
    """The models `origin + a d1 + b d2`. Made by `from_models`, `through` or `random`."""

    @classmethod
    def from_models(
        cls,
        aligned: Source,
        lox: Source | Direction,
        attacked: Source | Direction,
        attacked_lox: Source | Direction,
    ) -> Plane:
        """Return the paper's plane (Perin et al. 2025, arXiv:2506.15606).

        d1 = LoX - aligned; d2 = the mean of (attacked - aligned) and (attacked LoX - LoX), made
        orthogonal to d1; both of unit L2 norm over all weights, so that axes are distances. The two
        attacked models do not lie on it: `points` says how far off they are.

        Parameters
        ----------
        aligned : Model, checkpoint folder or sandbox name
        lox, attacked, attacked_lox : the same, or a Direction
            A direction stands for the model it leads to from the aligned one. Factors stay factors.

        Raises
        ------
        ValueError
            If the models are of two architectures, or the directions are zero or parallel.
        """
        origin = weights_of(aligned)
        to_lox, to_attacked = _delta(origin, lox, "LoX"), _delta(origin, attacked, "attack")
        to_both = _delta(origin, attacked_lox, "attacked LoX")
        attack_on_lox = combine([(1.0, to_both), (-1.0, to_lox)], "attack on LoX")
        mean = combine([(0.5, to_attacked), (0.5, attack_on_lox)], "mean attack")
        plane = cls._orthonormal(origin, to_lox, mean)
        points = {"attacked": plane.locate(to_attacked), "attacked LoX": plane.locate(to_both)}
        return dataclasses.replace(plane, points={**plane.points, **points})

    @classmethod
    def through(
        cls, aligned: Source, lox: Source | Direction, attacked: Source | Direction
    ) -> Plane:
        """Return the plane through three models, which all lie on it; axes as in `from_models`.

        Raises
        ------
        ValueError
            As `from_models`.
        """
        origin = weights_of(aligned)
        to_lox, to_attacked = _delta(origin, lox, "LoX"), _delta(origin, attacked, "attack")
        plane = cls._orthonormal(origin, to_lox, to_attacked)
        n, c, m = plane.scale
        points = {**plane.points, "attacked": Point((n * c, m), 0.0)}
        return dataclasses.replace(plane, points=points)

    @classmethod
    def random(cls, aligned: Source, seed: int = 0) -> Plane:
        """Return a plane of two random directions, with axes in units of those directions."""
        origin = weights_of(aligned)
        return cls(
            tuple(random_direction(origin, 2 * seed + i).hold(origin) for i in (0, 1)),
            (1.0, 0.0, 1.0),
            "direction",
            tuple(f"random direction {i} (layer-normalised)" for i in (1, 2)),
            {"aligned": Point((0.0, 0.0), 0.0)},
            origin.key,
            origin.name,
        )

    @classmethod
    def _orthonormal(cls, origin: Weights, first: Direction, second: Direction) -> Plane:
        """Return the plane along two directions, with orthogonal axes of unit L2 norm."""
        first, second = first.hold(origin), second.hold(origin)
        n, length = _length(first), _length(second)
        c = dot(first, second) / n**2
        rest = length**2 - (c * n) ** 2
        if rest <= (PARALLEL * length) ** 2:
            raise ValueError(
                f"the directions {first.name} and {second.name} are parallel: they span a line, "
                "not a plane. Use Line.along."
            )
        return cls(
            (first, second),
            (n, c, math.sqrt(rest)),
            "L2",
            (f"along {first.name} (L2)", f"along the {second.name} (L2)"),
            {"aligned": Point((0.0, 0.0), 0.0), "LoX": Point((n, 0.0), 0.0)},
            origin.key,
            origin.name,
        )


class Line(Flat):
    """The models `origin + a d`."""

    @classmethod
    def along(cls, origin: Source, direction: Direction | Source, *, unit: str = "L2") -> Line:
        """Return the line from a model along a direction, or through another model.

        Parameters
        ----------
        unit : "L2" or "direction"
            Whether a is a distance over all weights, or a multiple of the direction.

        Raises
        ------
        ValueError
            If `unit` is another word, or the direction is zero.
        """
        if unit not in UNITS:
            raise ValueError(f"unit={unit!r}: use 'L2' or 'direction'.")
        weights = weights_of(origin)
        held = _delta(weights, direction).hold(weights)
        n = _length(held) if unit == "L2" else 1.0
        label = f"along {held.name} ({'L2' if unit == 'L2' else 'in units of it'})"
        points = {"origin": Point((0.0,), 0.0)}
        return cls((held,), (n, 0.0, 1.0), unit, (label,), points, weights.key, weights.name)


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
    over all weights. Each checkpoint is read once, one tensor at a time; sums are in float64.

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
    start = weights_of(origin)
    path = [weights_of(m) for m in checkpoints]
    check_origin(start, flat)
    flat.check_unit()
    if len(path) < 2:
        raise ValueError(f"{len(path)} checkpoint: a path needs at least two.")
    for weights in path:
        check_shapes(start, weights)
    found: list[list] = [[] for _ in path]  # of each checkpoint: the products of every tensor
    steps: list[list[float]] = [[] for _ in path[1:]]  # squared lengths, of every tensor
    for tensor in start.tensors:
        W_origin, before = start.read(tensor), None
        for i, weights in enumerate(path):
            here = weights.read(tensor)
            found[i].append(products(tensor, minus(here, W_origin), flat.directions))
            if before is not None:
                steps[i - 1] += products(tensor, minus(here, before), ())
            before = here
    points = [flat.point(rows) for rows in found]
    within = np.linalg.norm(np.diff([p.at for p in points], axis=0), axis=1).sum()
    length = sum(math.sqrt(math.fsum(squares)) for squares in steps)
    return Trajectory(
        name,
        tuple(p.at for p in points),
        tuple(p.distance for p in points),
        length,
        float(within / length) if length else 0.0,
    )


def _delta(origin: Weights, model: Source | Direction, name: str | None = None) -> Direction:
    """Return the direction from the origin to a model, or the direction itself, under a name."""
    if isinstance(model, Direction):
        found = origin.naming(model)
        for tensor, part in found.parts.items():
            check_shape(origin, tensor, part.shape, f"the direction {model.name}")
    else:
        found = between(origin, model)
    return dataclasses.replace(found, name=name or found.name)


def _length(direction: Direction) -> float:
    """Return the norm of a direction; refuse one of zero length, or not finite."""
    length = norm(direction)
    if not length > 0 or not math.isfinite(length):
        raise ValueError(
            f"the direction {direction.name} has length {length}: are the two models the same, or "
            "one of them broken?"
        )
    return length
