"""Planes and lines through weight space: points, files, and a model that is moved over them.

A point's weights are `origin + x D1 + y D2` with the directions as they were given, low-rank ones
as factors; making the axes orthogonal and of unit length happens in the coefficients, in float64:

    y = b / m,   x = a / n - c y        n = |D1|,  c = <D1, D2> / n^2,  m = |D2 - c D1|
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from lox_kit.extrapolation import LowRank, Part, ResidentWeights, Terms
from lox_kit.folders import reading, whole
from lox_kit.models import Model
from lox_kit.store import NUMBER, check_fields, content_key
from lox_kit.weights import read_made, write_tensors

from .directions import Direction, Weights, products

SCHEMA = 1  # of the file; raised where an older lox_kit would read it wrongly
UNITS = ("L2", "direction")  # of coordinates
LARGEST = 3.4e38  # value that float32 holds
FIELDS = {  # of what the file's header holds as JSON
    **{"scale": [NUMBER], "unit": str, "axes": [str], "origin": [str], "directions": [[str]]},
    "points": {...: {"at": [NUMBER], "distance": NUMBER}},
}


@dataclasses.dataclass(frozen=True)
class Point:
    """Where a model lies: its nearest point on the plane, and how far off it is."""

    at: tuple[float, ...]
    distance: float  # L2, over all weights


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """An origin and one or two directions: what `Plane` and `Line` share.

    Attributes
    ----------
    directions : tuple of Direction
        As given; `scale` says how a and b weigh them.
    scale : tuple (n, c, m)
        See the module's formula; (1, 0, 1) leaves the directions as they are.
    unit : "L2" or "direction"
        Whether coordinates are distances over all weights, or multiples of the directions.
    axes : tuple of str
        What the axes are, for labels.
    points : dict of name to Point
    origin_key, origin_name : str
        Of the model at (0, 0).
    """

    directions: tuple[Direction, ...]
    scale: tuple[float, float, float]
    unit: str
    axes: tuple[str, ...]
    points: Mapping[str, Point]
    origin_key: str
    origin_name: str

    @property
    def key(self) -> str:
        """Hash of what determines its models: the origin, the directions, the axes' unit."""
        along = [d.key for d in self.directions]
        return content_key(origin=self.origin_key, along=along, unit=self.unit)

    def coefficients(self, at: tuple[float, ...]) -> tuple[float, ...]:
        """Return the factors of the directions at a point."""
        n, c, m = self.scale
        if len(at) != len(self.directions):
            raise ValueError(f"{at}: a point here has {len(self.directions)} coordinates.")
        if len(at) == 1:
            return (at[0] / n,)
        y = at[1] / m
        return at[0] / n - c * y, y

    def locate(self, delta: Direction) -> Point:
        """Return where `origin + delta` lies, in float64, tensor by tensor.

        The distance is what is left of the squared length: a model on the plane is within 1e-7 of
        its distance from the origin.

        Parameters
        ----------
        delta : Direction
            From the plane's origin, as `between(origin, model)` makes it.

        Raises
        ------
        ValueError
            If the axes are multiples of directions.
        """
        self.check_unit()
        parts = delta.parts.items()
        return self.point([products(name, part, self.directions) for name, part in parts])

    def point(self, products: Sequence[Sequence[float]]) -> Point:
        """Return where a delta lies, given the `products` of each of its parts."""
        n, c, m = self.scale
        first, *others, square = map(math.fsum, zip(*products, strict=True))
        at = (first / n, *((second - c * first) / m for second in others))
        return Point(at, math.sqrt(max(square - sum(x * x for x in at), 0.0)))

    def check_unit(self) -> None:
        """Raise ValueError if coordinates are not distances."""
        if self.unit != "L2":
            raise ValueError("the axes here are not distances, so lengths along them mean nothing.")

    def to(self, device: str) -> Self:
        """Return it with its directions on a device; "cpu" spares the memory of a GPU."""
        return dataclasses.replace(self, directions=tuple(d.to(device) for d in self.directions))

    # --- on disk ------------------------------------------------------------------------------

    def save(self, file: str | Path) -> Path:
        """Write it to one safetensors file, from which another process loads it."""
        tensors = {}
        for i, direction in enumerate(self.directions):
            for name, part in direction.parts.items():
                if isinstance(part, LowRank):
                    tensors |= {f"{i}/left/{name}": part.left, f"{i}/right/{name}": part.right}
                else:
                    tensors[f"{i}/dense/{name}"] = part
        about = {
            "scale": self.scale,
            "unit": self.unit,
            "axes": self.axes,
            "points": {n: dataclasses.asdict(p) for n, p in self.points.items()},
            "origin": [self.origin_key, self.origin_name],
            "directions": [[d.key, d.name] for d in self.directions],
        }
        layout = {n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()}
        about = {"lox_kit_flat": json.dumps(about), "schema": str(SCHEMA)}
        file = Path(file)
        with whole(file) as work:
            write_tensors(work, layout, about, tensors.values())
        return file

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it holds no plane or line, or a damaged one.
        """
        file = Path(file)
        tensors, about = read_made(file, "lox_kit_flat", SCHEMA, "`save` of a plane or line")
        check_fields(file, about, FIELDS)
        with reading(file, "a damaged plane or line; save it again"):
            scale, axes = tuple(about["scale"]), tuple(about["axes"])
            points = {n: Point(tuple(p["at"]), p["distance"]) for n, p in about["points"].items()}
            n, _, m = scale
            if not (n > 0 and m > 0):
                raise ValueError(f"'scale' is {scale}")
            if about["unit"] not in UNITS:
                raise ValueError(f"'unit' is {about['unit']!r}")
            if any(len(p.at) != len(axes) for p in points.values()):
                raise ValueError("'points' of other than as many coordinates")
            parts: dict[str, dict[str, Part]]
            parts = {str(i): {} for i in range(len(about["directions"]))}
            for tensor, info in tensors.items():
                i, kind, name = tensor.split("/", 2)
                if not info.dtype.is_floating_point:
                    raise ValueError(f"{tensor} is of {info.dtype}")
                if kind == "dense":
                    parts[i][name] = info.read()
                elif kind not in ("left", "right"):
                    raise ValueError(f"{tensor} is no part of a direction")
                elif name not in parts[i]:  # with the other of the two factors
                    part = LowRank(*(tensors[f"{i}/{n}/{name}"].read() for n in ("left", "right")))
                    left, right = map(tuple, (part.left.shape, part.right.shape))
                    alike = part.left.dtype == part.right.dtype
                    if not (alike and len(left) == len(right) == 2 and left[1] == right[0]):
                        said = f"{part.left.dtype} by {right} {part.right.dtype}"
                        raise ValueError(f"{name}: {left} {said}")
                    if not float(part.left.norm()) * float(part.right.norm()) < LARGEST:
                        raise ValueError(f"{name}: factors whose product overflows")
                    parts[i][name] = part
            if not (len(axes) == len(parts) in (1, 2) and all(parts.values())):
                raise ValueError(f"{len(axes)} 'axes', {len(parts)} 'directions', some empty")
            named = zip(parts.values(), about["directions"], strict=True)
            directions = tuple(Direction(held, *said) for held, said in named)
            return cls(directions, scale, about["unit"], axes, points, *about["origin"])


# --- a model on it ----------------------------------------------------------------------------


class Walk(AbstractContextManager):
    """A resident model that is moved over a plane or line; a context manager.

    Every point is written from a kept copy of the origin, `W0 + x D1 + y D2`, summed in float32
    (float64 for a model in float64) and rounded once, so nothing drifts. On leaving, the origin is
    copied back bit for bit.

    Parameters
    ----------
    model : Model
        With the weights of the plane's origin. Its key is that of the point it is at, so that no
        stored answer of other weights is taken for its own.
    flat : Plane or Line
    keep_on : "device" or "cpu"
        Where the copy is, see `ResidentWeights`; "cpu" keeps the directions there as well.

    Raises
    ------
    ValueError
        If the model is not the plane's origin.
    """

    def __init__(self, model: Model, flat: Flat, keep_on: str = "device"):
        check_origin(model, flat)
        self.model, self.flat = model, flat.to("cpu") if keep_on == "cpu" else flat
        shapes = {n: part.shape for d in flat.directions for n, part in d.parts.items()}
        self._kept = ResidentWeights(model, shapes, keep_on)

    def __exit__(self, *exc) -> None:
        self._kept.write(lambda name: [], self.flat.origin_key)

    def go(self, at: tuple[float, ...]) -> Model:
        """Put the model at a point and return it."""
        steps = list(zip(self.flat.coefficients(at), self.flat.directions, strict=True))

        def terms(name: str) -> Terms:
            return [(c, d.parts[name]) for c, d in steps if c != 0 and name in d.parts]

        self._kept.write(terms, point_key(self.flat, at))
        return self.model


def check_origin(model: Model | Weights, flat: Flat) -> None:
    """Raise ValueError if a model is not the origin of a plane or line."""
    if model.key != flat.origin_key:
        raise ValueError(
            f"{model.name} is not the origin of this plane, {flat.origin_name}: load that one."
        )


def point_key(flat: Flat, at: tuple[float, ...]) -> str:
    """Return the key of the model at a point; at the origin, the origin's own."""
    if not any(at):
        return flat.origin_key
    return content_key(flat=flat.key, at=[x + 0.0 for x in at])  # -0.0 is 0.0
