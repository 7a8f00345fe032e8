"""The arms of an experiment: an aligned model, its LoX, and the controls of equal norm."""

from __future__ import annotations

import copy
from collections.abc import Callable

from lox_kit.attacks import Step
from lox_kit.extrapolation import LoxDial, SafetySubspace, full_delta, random_subspace
from lox_kit.models import Model
from lox_kit.threads import OnStage, tell

ARMS = ("aligned", "LoX", "random subspace", "full delta")


def arm_model(
    arm: str, aligned: Model, subspace: SafetySubspace, k: int, alpha: float, seed: int = 0
) -> Model:
    """Return a copy of the aligned model, edited as `arm` says, with a key of its own.

    Parameters
    ----------
    arm : of `ARMS`
    subspace : SafetySubspace
        With every direction (`rank="full"`) for the full delta.
    seed : int
        Of the random subspace.
    """
    if arm == "aligned":
        return aligned
    make = {
        "LoX": lambda: subspace,
        "random subspace": lambda: random_subspace(subspace, k, seed=seed),
        "full delta": lambda: full_delta(subspace, k),
    }
    module = copy.deepcopy(aligned.module)
    model = Model(module, aligned.tokenizer, aligned.key, f"{aligned.name} + {arm}")
    LoxDial(model, make[arm]()).set(k=k if arm == "LoX" else None, alpha=alpha)
    return model


def steps_of(on_stage: OnStage | None, what: str) -> Callable[[Step], None]:
    """Return an `on_step` that reports the steps of what is being done."""
    return lambda step: tell(on_stage, what, step.step, step.total)
