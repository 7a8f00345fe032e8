"""The planes and lines of the landscape: through models, or along random directions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from .directions import (
    Direction,
    Source,
    Weights,
    between,
    check_shape,
    combine,
    dot,
    norm,
    random_direction,
    weights_of,
)
from .flat import Flat, Point

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
            A direction stands for the model it leads to: LoX and the attacked model from the
            aligned one, the attacked LoX model from LoX. Factors stay factors.

        Raises
        ------
        ValueError
            If the models are of two architectures, or the directions are zero or parallel.
        """
        origin = weights_of(aligned)
        lox, attacked, attacked_lox = map(_opened, (lox, attacked, attacked_lox))
        to_lox = _delta(origin, lox, "LoX")
        attack = _delta(origin, attacked, "attack")
        if isinstance(attacked_lox, Direction):
            attack_lox = attacked_lox
            to_both = combine([(1.0, to_lox), (1.0, attacked_lox)], "attacked LoX")
        else:
            to_both = _delta(origin, attacked_lox, "attacked LoX")
            attack_lox = combine([(1.0, to_both), (-1.0, to_lox)], "attack on LoX")
        mean = combine([(0.5, attack), (0.5, attack_lox)], "mean attack")
        plane = cls._orthonormal(origin, to_lox.hold(origin), mean.hold(origin))
        plane = plane._made("from_models", origin, lox, attacked, attacked_lox)
        return plane._with_points(
            {"LoX": (1.0, 0.0)}, {"attacked": attack, "attacked LoX": to_both}
        )

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
        lox, attacked = map(_opened, (lox, attacked))
        D = [_delta(origin, m, n).hold(origin) for m, n in ((lox, "LoX"), (attacked, "attack"))]
        plane = cls._orthonormal(origin, *D)._made("through", origin, lox, attacked)
        return plane._with_points({"LoX": (1.0, 0.0), "attacked": (0.0, 1.0)}, {})

    @classmethod
    def random(cls, aligned: Source, seed: int = 0, normalise: str = "layer") -> Plane:
        """Return a plane of two random directions, with axes in units of those directions.

        Parameters
        ----------
        normalise : "filter", "layer" or "none"
            See `landscape.random_direction`.
        """
        origin = weights_of(aligned)
        D = [random_direction(origin, 2 * seed + i, normalise).hold(origin) for i in (0, 1)]
        labels = tuple(f"random direction {i} ({normalise}-normalised)" for i in (1, 2))
        points = {"aligned": Point((0.0, 0.0), 0.0)}
        plane = cls(tuple(D), (1.0, 0.0, 1.0), "direction", labels, points, origin.key, origin.name)
        return plane._made("random", origin, seed=seed, normalise=normalise)

    @classmethod
    def _orthonormal(cls, origin: Weights, first: Direction, second: Direction) -> Plane:
        """Return the plane with orthogonal axes of unit L2 norm."""
        n = _length(first)
        c = dot(first, second) / n**2
        rest = _length(second) ** 2 - (c * n) ** 2
        if rest <= (PARALLEL * _length(second)) ** 2:
            raise ValueError(
                f"the directions {first.name} and {second.name} are parallel: they span a line, "
                "not a plane. Use Line.along."
            )
        labels = (f"along {first.name} (L2)", f"along the {second.name} (L2)")
        points = {"aligned": Point((0.0, 0.0), 0.0)}
        scale = (n, c, math.sqrt(rest))
        return cls((first, second), scale, "L2", labels, points, origin.key, origin.name)

    def _made(self, method: str, *of: Weights | Direction, **options) -> Plane:
        """Return the plane with what makes it again."""
        sources = [s.made if isinstance(s, Direction) else s.source for s in of]
        return dataclasses.replace(self, made={"method": method, "of": sources, **options})

    def _with_points(
        self, on: Mapping[str, tuple[float, float]], off: Mapping[str, Direction]
    ) -> Plane:
        """Return the plane with models added: those it was made through, and others by delta."""
        points = {name: Point(self.coordinates(c), 0.0) for name, c in on.items()}
        points |= {name: self.locate(delta) for name, delta in off.items()}
        return dataclasses.replace(self, points={**self.points, **points})


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
        if unit not in ("L2", "direction"):
            raise ValueError(f"unit={unit!r}: use 'L2' or 'direction'.")
        weights = weights_of(origin)
        held = _delta(weights, direction, "").hold(weights)
        n = _length(held) if unit == "L2" else 1.0
        label = f"along {held.name} ({'L2' if unit == 'L2' else 'in units of it'})"
        points = {"origin": Point((0.0,), 0.0)}
        return cls((held,), (n, 0.0, 1.0), unit, (label,), points, weights.key, weights.name)


def _opened(source: Source | Direction) -> Weights | Direction:
    """Return a model's weights, opened once; a direction as it is."""
    return source if isinstance(source, Direction) else weights_of(source)


def _delta(origin: Weights, model: Source | Direction, name: str) -> Direction:
    """Return the direction from the origin to a model, or the direction itself, under a name."""
    found = model if isinstance(model, Direction) else between(origin, model)
    for tensor, part in found.parts.items() if isinstance(model, Direction) else ():
        check_shape(origin, tensor, part.shape, f"the direction {found.name}")
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
