"""Where the dial stands: how many directions of which matrices, and how far along them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from lox_kit.extrapolation import place_of

ALL = "all"


class Place(NamedTuple):
    """A setting of the dial."""

    k: int
    alpha: float
    include: str | None = None  # a pattern of names, as `SafetySubspace.select` takes it

    def __str__(self) -> str:
        some = ", some matrices" if self.include else ""
        return f"k = {self.k}, α = {self.alpha:g}{some}"


def depth_of(names: Iterable[str]) -> int:
    """Return how many layers these matrices are in."""
    return 1 + max((depth for depth, _ in map(place_of, names) if depth is not None), default=-1)


def pattern(kind: str, layers: tuple[int, int], depth: int) -> str | None:
    """Return what selects a kind of matrix within layers, both ends included; None for all of them.

    With fewer than all layers, matrices outside of them (embeddings, head) are left out.
    """
    first, last = layers
    of_kind = "" if kind == ALL else rf"\b{re.escape(kind)}(\.weight)?$"
    if (first, last) == (0, depth - 1):
        return of_kind or None
    some = "|".join(map(str, range(first, last + 1)))
    return rf"\.({some})\..*{of_kind}"
