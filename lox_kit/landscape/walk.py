"""Put a model in memory at the points of a plane, in place, and give its weights back."""

from __future__ import annotations

from lox_kit.extrapolation import ResidentWeights, Terms
from lox_kit.models import Model
from lox_kit.store import content_key

from .directions import Weights
from .flat import Flat


class Walk:
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

    Raises
    ------
    ValueError
        If the model is not the plane's origin.
    """

    def __init__(self, model: Model, flat: Flat):
        check_origin(model, flat)
        self.model, self.flat = model, flat
        shapes = {n: part.shape for d in flat.directions for n, part in d.parts.items()}
        self._kept = ResidentWeights(model, shapes)

    def __enter__(self) -> Walk:
        return self

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
