"""Which k, which alpha? A grid of both, before and after attacks, coarse to fine to a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product

from lox_kit.attacks import Attack, world_attacks
from lox_kit.extrapolation import check_alpha
from lox_kit.measures import Questions, world_questions
from lox_kit.store import Store

from .arms import Arm
from .entries import sharing_models
from .results import AttackTable
from .table import attack_table

KS = (1, 2, 6, 16, None)
ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
DEVELOPMENT = 3  # of a world's attacks, the first ones; the others are held out
Cell = tuple[int, int]  # of the grid: number of the k, number of the alpha


def setting(k: int | None, alpha: float) -> Arm:
    """Return LoX at this setting as an arm, named by it; `k=None` is along the whole delta."""
    return Arm("LoX", k, alpha, f"k={'all' if k is None else k} alpha={alpha:g}")


@sharing_models()
def sweep(
    ks: Sequence[int | None] = KS,
    alphas: Sequence[float] = ALPHAS,
    attacks: Sequence[str | Attack] | None = None,
    seeds: Sequence[int] = (0,),
    *,
    budget: int | None = None,
    pair: tuple[str, str] | None = None,
    world: str = "sandbox",
    limit: int | None = None,
    questions: Questions | None = None,
    store: Store,
    **options,
) -> AttackTable:
    """Measure LoX at every k and alpha before and after every attack, on development requests.

    With a budget the coarse settings are first, then the neighbours of those that gain most: help
    before the attacks minus the largest ASR after one. Every entry is kept; the same call resumes,
    and one with a larger budget computes the difference.

    Parameters
    ----------
    ks : sequence of int or None
        None is all directions, at the delta's own norm.
    alphas : sequence of float
        Above 0: the aligned model is always measured.
    attacks : sequence of str or Attack, optional
        Default the first `DEVELOPMENT` of the world's.
    budget : int, optional
        Settings that are attacked; default all.
    pair, world, seeds, options : see `attack_table`
    limit : int, optional
        Requests of each kind; default all development requests.
    questions : Questions, optional
        Of a pair of your own, with allowed requests.

    Returns
    -------
    AttackTable
        "sweep" of its source has the grid, and the settings that were not tried.

    Raises
    ------
    ValueError
        If there is no setting, no attack or no allowed request, a k or an alpha is out of range;
        and as `attack_table`.
    """
    names = world_attacks(world)[:DEVELOPMENT] if attacks is None else attacks
    asked = (questions or world_questions(world, "dev", limit)).with_help()
    ks = sorted({*ks}, key=lambda k: (k is None, k))
    alphas = sorted({*alphas})
    _check(ks, alphas, names, asked, budget)
    grid = {
        (i, j): setting(k, alpha)
        for (i, k), (j, alpha) in product(enumerate(ks), enumerate(alphas))
    }
    options |= {"pair": pair, "world": world, "questions": asked, "store": store}
    tried, gains, found = [], {}, None
    for cells in coarse_to_fine((len(ks), len(alphas)), budget or len(grid), gains):
        tried += cells
        arms = ["aligned", *(grid[cell] for cell in sorted(tried))]
        found = attack_table(arms, names, seeds, lora=(), drift=True, **options)
        for cell in tried:
            help_before = found.pooled("helpfulness", None, grid[cell].name)
            gains[cell] = help_before.value - found.worst(grid[cell].name)[1].value
    assert found is not None
    about = {"pair": pair and [*map(str, pair)], "world": None if pair else world}
    about |= {"attacks": found.attacks, "ks": ks, "alphas": alphas, "budget": budget}
    about["untried"] = [arm.name for cell, arm in grid.items() if cell not in gains]
    return AttackTable(found.rows, {**found.source, "sweep": about})


def coarse_to_fine(
    shape: tuple[int, int], budget: int, gains: Mapping[Cell, float]
) -> Iterator[list[Cell]]:
    """Yield lists of cells to measure, each cell once: what a larger budget adds comes after.

    First the ends and the middle of both axes; then, again and again, what is next to the cell that
    gains most, of those with a neighbour left. Of equal gain the smaller alpha, then the smaller k,
    is first. Where the budget holds the whole grid, that is one list.

    Parameters
    ----------
    budget : int
        Cells in all.
    gains : mapping of cell to float
        Where the caller puts what it measured before it asks for the next list.
    """
    levels = [_levels(n) for n in shape]
    level = {(i, j): max(levels[0][i], levels[1][j]) for i in levels[0] for j in levels[1]}
    left = sorted(level, key=lambda cell: (level[cell], cell[1], cell[0]))
    if budget >= len(left):
        yield left
        return
    wanted = [cell for cell in left if level[cell] <= 1]
    while wanted:
        yield wanted[: budget - len(gains)]
        if len(gains) >= budget:
            return
        left = [cell for cell in left if cell not in gains]
        best = sorted(gains, key=lambda cell: (-gains[cell], cell[1], cell[0]))
        beside = ([cell for cell in left if _is_beside(cell, known)] for known in best)
        wanted = next(filter(None, beside), [])


def _levels(n: int) -> dict[int, int]:
    """Return at which halving each place of an axis is reached; its ends are there at the start."""
    found, level = {0: 0, n - 1: 0}, 0
    while len(found) < n:
        level += 1
        middles = [(a + b) // 2 for a, b in pairwise(sorted(found))]
        found = dict.fromkeys(middles, level) | found
    return found


def _is_beside(one: Cell, other: Cell) -> bool:
    """Whether two cells touch, at a corner at least."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) == 1


def _check(ks, alphas, attacks, asked: Questions, budget: int | None) -> None:
    """Raise before anything slow if there is nothing to sweep over, or to measure."""
    if not (ks and alphas and attacks and asked.allowed):
        raise ValueError("a sweep takes a k, an alpha, an attack and allowed requests: give each.")
    for alpha in alphas:
        check_alpha(alpha)
    if 0 in alphas or any(k is not None and k < 1 for k in ks):
        raise ValueError(
            "use k of at least 1 and alpha above 0: the aligned model is always there."
        )
    if budget is not None and budget < 1:
        raise ValueError(f"budget={budget}: use at least 1 setting.")
