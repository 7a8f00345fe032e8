"""The arms of an experiment: an aligned model, its LoX, and the controls of equal norm."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable

from lox_kit.attacks import Step
from lox_kit.extrapolation import FULL, LoxDial, SafetySubspace, full_delta, random_subspace
from lox_kit.models import Model
from lox_kit.threads import OnStage, tell

ARMS = ("aligned", "LoX", "random subspace", "full delta")
TABLE_ARMS = (*ARMS, "SafeInst")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One model of an experiment, and what it is called there.

    Parameters
    ----------
    kind : of `TABLE_ARMS`
        SafeInst is the aligned model, with safety rows in the attack's data.
    k, alpha : int or None, float
        Directions of LoX (None: all of the delta, at its own norm), and its factor; a control steps
        as far as LoX would with them.
    name : str, optional
        Default the kind.
    checkpoint : str, optional
        Another than the pair's aligned model, such as one that was aligned for longer. A name of a
        family is taken with the seed.
    """

    kind: str
    k: int | None = 6
    alpha: float = 1.0
    name: str = ""
    checkpoint: str | None = None

    def __post_init__(self):
        if self.kind not in TABLE_ARMS:
            raise ValueError(f"arm {self.kind!r}: use some of {', '.join(TABLE_ARMS)}.")
        object.__setattr__(self, "name", self.name or self.kind)

    @property
    def is_edit(self) -> bool:
        """Whether its weights are not those of a checkpoint."""
        return self.kind not in ("aligned", "SafeInst")

    @property
    def rank(self) -> int | str:
        """Directions that the pair must be factored into for it: a number, or `FULL`."""
        if not self.is_edit:
            return 0
        return FULL if self.k is None or self.kind == "full delta" else self.k


def rank_of(arms: Iterable[Arm]) -> int | str:
    """Return the rank that serves all of these arms, so that a pair is factored once."""
    ranks = {arm.rank for arm in arms}
    return FULL if FULL in ranks else max(ranks)


def arm_model(
    kind: str, aligned: Model, subspace: SafetySubspace, k: int | None, alpha: float, seed: int = 0
) -> Model:
    """Return a copy of the aligned model, edited as an arm of this kind is, with a key of its own.

    Parameters
    ----------
    kind : of `ARMS`
        Of "aligned" it is the model itself.
    subspace : SafetySubspace
        With every direction (`rank="full"`) for the full delta.
    seed : int
        Of the random subspace.
    """
    if kind == "aligned":
        return aligned
    make = {
        "LoX": lambda: subspace,
        "random subspace": lambda: random_subspace(subspace, k, seed=seed),
        "full delta": lambda: full_delta(subspace, k),
    }
    module = copy.deepcopy(aligned.module)
    model = Model(module, aligned.tokenizer, aligned.key, f"{aligned.name} + {kind}")
    LoxDial(model, make[kind]()).set(k=k if kind == "LoX" else None, alpha=alpha)
    return model


def steps_of(on_stage: OnStage | None, what: str) -> Callable[[Step], None]:
    """Return an `on_step` that reports the steps of what is being done."""
    return lambda step: tell(on_stage, what, step.step, step.total)
