"""Is it the low rank? Directions compared at equal cost, along alpha, on the real small model.

Two directions of equal norm need not cost the same. So each is followed along alpha, and what it
keeps after an attack is read against what it refuses too much before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lox_kit.extrapolation import SafetySubspace
from lox_kit.measures import measure_asr, world_questions
from lox_kit.models import load_model
from lox_kit.store import Store
from lox_kit.threads import OnStage

from .arms import Arm, arm_model
from .families import build_longer, pair_of
from .results import AttackTable
from .table import attack_table

# Kinds of step, k, and the alphas along it. A control steps as far as LoX does with its k.
DIRECTIONS = (
    ("LoX", 1, (0.5, 1.0, 2.0)),
    ("LoX", 6, (0.5, 1.0, 1.5)),
    ("LoX", 32, (0.5, 1.0, 1.5)),
    ("full delta", 6, (1.0, 2.0, 3.0)),
    ("random subspace", 6, (1.0, 3.0)),
)


def _named(kind: str, k: int, alpha: float) -> Arm:
    """Return an arm named by its kind and its step."""
    return Arm(kind, k, alpha, name=f"{kind} k={k} alpha={alpha:g}")


COST = _named("LoX", 6, 1.0)  # whose over-refusal the longer-aligned model is to reach
LONGER = Arm("aligned", name="longer aligned", checkpoint="smol/longer")


def frontier_arms() -> Iterator[Arm]:
    """Yield the aligned model, every direction at its alphas, and the longer-aligned model."""
    yield Arm("aligned")
    for kind, k, alphas in DIRECTIONS:
        for alpha in alphas:
            yield _named(kind, k, alpha)
    yield LONGER


def smol_frontier(
    seeds: Sequence[int] = (0, 1, 2),
    attacks: Sequence[str] = ("chat", "dragons"),
    *,
    limit: int | None = None,
    store: Store,
    on_stage: OnStage | None = None,
    **options,
) -> AttackTable:
    """Measure every arm of the frontier before and after every attack, on every seed.

    A seed is one of data and order: the base is one. The test requests are asked; the
    longer-aligned models are made to cost as much as LoX on the development requests.

    Parameters
    ----------
    limit : int, optional
        Requests of each kind; default all 240.
    options
        As `attack_table` takes them: executor, keep.
    """
    shared, asked = {"store": store, "on_stage": on_stage}, world_questions("smol", "dev")
    for seed in seeds:
        pair = pair_of(seed, world="smol", on_stage=on_stage)
        subspace = SafetySubspace.from_pair(*pair, rank=COST.k, on_stage=on_stage)
        lox = arm_model(COST.kind, load_model(pair[1]), subspace, COST.k, COST.alpha)
        cost = measure_asr(lox, asked.allowed, ["keyword"], **asked.how, **shared).refusal
        build_longer(seed, cost, on_stage=on_stage)
    options |= {"world": "smol", "lora": (), "questions": world_questions("smol", limit=limit)}
    return attack_table([*frontier_arms()], attacks, seeds, **shared, **options)
