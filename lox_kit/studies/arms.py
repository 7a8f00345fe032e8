"""The arms of an experiment: an aligned model, its LoX, and the controls of equal norm.

One control weakens on purpose: LoX's step backwards. It is made here, in memory, and no function
writes its weights.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

from lox_kit.attacks import Step
from lox_kit.extrapolation import (
    CONTROL_NAMES,
    FULL,
    LoxDial,
    SafetySubspace,
    control_of,
    control_rank,
    is_control,
)
from lox_kit.models import Model
from lox_kit.threads import OnStage, tell

ARMS = ("aligned", "LoX", "random subspace", "full delta")
TABLE_ARMS = (*ARMS, "SafeInst")
FLIPPED = "flipped"
_CONTROLS = {"random subspace": "random", "full delta": "full"}  # what these arms are


@dataclasses.dataclass(frozen=True)
class Arm:
    """One model of an experiment, and what it is called there.

    Parameters
    ----------
    kind : of `TABLE_ARMS`, or a control
        As `control_of` names it: bottom, kind:up_proj. SafeInst is the aligned model, with safety
        rows in the attack's data.
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
        if self.kind not in TABLE_ARMS and not is_control(self.kind):
            raise ValueError(
                f"arm {self.kind!r}: use some of {', '.join(TABLE_ARMS)}, or {CONTROL_NAMES}."
            )
        if self.k is None and self.is_edit and self.kind != "LoX":
            raise ValueError(f"arm {self.kind!r}: a control steps as far as some top k; give k.")
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
        if self.kind == "LoX":
            return FULL if self.k is None else self.k
        return control_rank(_CONTROLS.get(self.kind, self.kind), self.k)


def arm_model(
    kind: str, aligned: Model, subspace: SafetySubspace, k: int | None, alpha: float, seed: int = 0
) -> Model:
    """Return a copy of the aligned model, edited as an arm of this kind is, with a key of its own.

    Parameters
    ----------
    kind : of `ARMS`, a control, or "flipped"
        Of "aligned" it is the model itself. Flipped is LoX's step backwards, which undoes safety:
        no function writes that model or what it becomes.
    subspace : SafetySubspace
        Of as many directions as `Arm.rank` says.
    seed : int
        Of the controls that draw at random.

    Raises
    ------
    ValueError
        If there is no such control, or the subspace does not hold what it takes.
    """
    if kind == "aligned":
        return aligned
    if kind == "LoX":
        edit = subspace
    elif kind == FLIPPED:
        edit = _flipped(subspace, k)
    else:
        edit = control_of(_CONTROLS.get(kind, kind), subspace, k, seed)
    module = copy.deepcopy(aligned.module)
    model = Model(module, aligned.tokenizer, aligned.key, f"{aligned.name} + {kind}")
    model.in_memory = aligned.in_memory or kind == FLIPPED
    LoxDial(model, edit).set(k=k if kind == "LoX" else None, alpha=alpha)
    return model


def _flipped(subspace: SafetySubspace, k: int) -> SafetySubspace:
    """Return LoX's step of the top k backwards, as a control that is never written."""
    top = subspace.cut(dict.fromkeys(subspace, k))
    factors = {name: dataclasses.replace(f, U=-f.U) for name, f in top.items()}
    return SafetySubspace({**top.info, "control": FLIPPED, "control_k": k}, factors=factors)


def steps_of(on_stage: OnStage | None, what: str) -> Callable[[Step], None]:
    """Return an `on_step` that reports the steps of what is being done."""
    return lambda step: tell(on_stage, what, step.step, step.total)
