"""Put a model in memory at the points of a plane, in place, and give its weights back."""

from __future__ import annotations

import torch
from torch import Tensor

from lox_kit.models import Model
from lox_kit.store import content_key

from .directions import LowRank, Part, row_blocks, rows_of
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
    keep_on : str, optional
        Where the copy of the moved weights is kept; default beside the model, "cpu" spares GPU
        memory.

    Raises
    ------
    ValueError
        If the model is not the plane's origin.
    """

    def __init__(self, model: Model, flat: Flat, *, keep_on: str | None = None):
        check_origin(model, flat)
        self.model, self.flat = model, flat
        found = dict(model.module.named_parameters())
        names = dict.fromkeys(n for d in flat.directions for n in d.parts)
        place = {n: found[n].device if keep_on is None else keep_on for n in names}
        self._weights = {n: (found[n], found[n].detach().to(place[n], copy=True)) for n in names}

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *exc) -> None:
        self.home()

    def go(self, at: tuple[float, ...]) -> Model:
        """Put the model at a point and return it."""
        coefficients = self.flat.coefficients(at)
        self.model.key = "between two points"  # an interrupt leaves no weights under another's key
        with torch.no_grad():
            for name, (W, W0) in self._weights.items():
                terms = [
                    (c, d.parts[name])
                    for c, d in zip(coefficients, self.flat.directions, strict=True)
                    if c != 0 and name in d.parts
                ]
                _write(W, W0, terms)
        self.model.key = point_key(self.flat, at)
        return self.model

    def home(self) -> None:
        """Give the model the weights of the origin back."""
        self.model.key = "between two points"
        with torch.no_grad():
            for W, W0 in self._weights.values():
                W.copy_(W0)
        self.model.key = self.flat.origin_key


def check_origin(model: Model, flat: Flat) -> None:
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


def _write(W: Tensor, W0: Tensor, terms: list[tuple[float, Part]]) -> None:
    """Set `W` to `W0 + sum of c D`, rounded once; in half precision a few rows at a time."""
    W.copy_(W0)
    wide = torch.promote_types(W.dtype, torch.float32)
    if W.dtype == wide:
        _add(W, terms)
        return
    for rows, some in row_blocks(W):
        total = some.to(wide)
        _add(total, [(c, rows_of(part, rows)) for c, part in terms])
        some.copy_(total)


def _add(total: Tensor, terms: list[tuple[float, Part]]) -> None:
    """Add `sum of c D` in place, in the dtype of `total`."""
    for c, part in terms:
        if isinstance(part, LowRank):
            left, right = (t.to(total.device, total.dtype) for t in part)
            total.addmm_(left * c, right)
        else:
            total.add_(part.to(total.device, total.dtype), alpha=c)
