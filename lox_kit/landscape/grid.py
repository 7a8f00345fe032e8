"""The cells of a landscape: a lattice through the origin, and the order of a coarse-to-fine pass.

Coordinates are `index * step`. A finer grid has half the step and twice the indices, so the cells
they share have the very same coordinates, and the same keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product

import numpy as np

from .flat import Flat

Index = tuple[int, ...]  # position on a grid, from 0
COARSE = 5  # cells a side of the first pass
MARGIN = 0.4
BLOCKS = 8  # that are refined at a time: cells enough for several workers


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values `i * step` for i = first .. last."""

    step: float
    first: int
    last: int

    @property
    def values(self) -> np.ndarray:
        """The coordinates, ascending."""
        return np.arange(self.first, self.last + 1) * self.step

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells of a plane (two axes) or a line (one)."""

    axes: tuple[Axis, ...]

    @classmethod
    def spanning(cls, *ranges: tuple[float, float], cells: int = 21) -> Grid:
        """Return a grid over these ranges, one per axis; (0, 0) is on its lattice.

        Each range is moved by at most half a step for that.

        Parameters
        ----------
        ranges : (low, high)
        cells : int
            A side.

        Raises
        ------
        ValueError
            If a range is empty or has fewer than 2 cells.
        """
        axes = []
        for low, high in ranges:
            if cells < 2 or not high > low:
                raise ValueError(
                    f"{cells} cells from {low} to {high}: use at least 2, and low < high."
                )
            step = (high - low) / (cells - 1)
            first = round(low / step)
            axes.append(Axis(step, first, first + cells - 1))
        return cls(tuple(axes))

    @classmethod
    def around(cls, flat: Flat, cells: int = 21) -> Grid:
        """Return a grid around all points of a plane, with `MARGIN` of their extent on each side.

        Where the points have no extent (a random plane), the range is -0.5 to 0.5.
        """
        ranges = []
        for at in zip(*(p.at for p in flat.points.values()), strict=True):
            extent = max(at) - min(at)
            low, high = min(at) - MARGIN * extent, max(at) + MARGIN * extent
            ranges.append((low, high) if extent else (-0.5, 0.5))
        return cls.spanning(*ranges, cells=cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Cells in all."""
        return int(np.prod(self.shape))

    @property
    def indices(self) -> list[Index]:
        """Every cell, row by row."""
        return list(np.ndindex(self.shape))

    def at(self, index: Index) -> tuple[float, ...]:
        """Return the coordinates of a cell."""
        return tuple((a.first + i) * a.step for a, i in zip(self.axes, index, strict=True))

    def finer(self) -> Grid:
        """Return the grid with half the step over the same range."""
        return Grid(tuple(Axis(a.step / 2, 2 * a.first, 2 * a.last) for a in self.axes))


def refinement(
    shape: Sequence[int], budget: int, values: Mapping[Index, float]
) -> Iterator[list[Index]]:
    """Yield lists of cells to measure, coarse to fine.

    First `COARSE` cells a side; then, again and again, the blocks whose corners differ most are
    halved along each axis, the larger ones first where they differ alike. The order follows from
    the values alone.

    Parameters
    ----------
    budget : int
        Cells in all.
    values : mapping of index to float
        Where the caller puts what it measured before it asks for the next list.

    Raises
    ------
    ValueError
        If the budget does not hold the first pass.
    """
    marks = [sorted({round(x) for x in np.linspace(0, n - 1, min(COARSE, n))}) for n in shape]
    coarse = list(product(*marks))
    if budget < len(coarse):
        raise ValueError(f"budget={budget}: the first pass alone has {len(coarse)} cells.")
    yield coarse
    blocks = list(product(*(pairwise(m) for m in marks)))
    while budget > len(values) and blocks:
        blocks.sort(key=lambda block: _urgency(block, values))
        urgent, blocks = blocks[:BLOCKS], blocks[BLOCKS:]
        inside = dict.fromkeys(cell for block in urgent for cell in product(*_halves(block)))
        if wanted := [cell for cell in inside if cell not in values]:
            yield wanted[: budget - len(values)]
        blocks += [half for block in urgent for half in _split(block)]


Block = tuple[tuple[int, int], ...]  # first and last index along each axis


def _urgency(block: Block, values: Mapping[Index, float]) -> tuple:
    """Return what blocks are sorted by: how far the corners differ, then the size."""
    corners = [values[c] for c in product(*block)]
    size = np.prod([last - first for first, last in block])
    return (min(corners) - max(corners), -size, block)


def _halves(block: Block) -> list[list[int]]:
    """Return the first, middle and last index along each axis."""
    return [sorted({first, (first + last) // 2, last}) for first, last in block]


def _split(block: Block) -> list[Block]:
    """Return the blocks that halving leaves, those with cells inside."""
    pieces = product(*(pairwise(marks) for marks in _halves(block)))
    return [b for b in pieces if any(last - first > 1 for first, last in b)]
