"""What is done to a model in memory alone: attackers who know LoX, and Safe LoRA after an attack.

Every attacker has the released weights W and knows the method. What he has beside that, and what he
then does, is said of each. None of these models is ever written.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lox_kit.attacks import Attack, Step, attack_key, fine_tune
from lox_kit.extrapolation import (
    FULL,
    Factors,
    LowRank,
    Part,
    ResidentWeights,
    SafetySubspace,
    safe_lora,
    top_factors,
)
from lox_kit.landscape import between
from lox_kit.models import Model
from lox_kit.store import content_key
from lox_kit.weights import Checkpoint, find_places, values_of

from .arms import Arm

VERSION = 1  # of the treatments, in keys: raised when one of them does something else
GUESSED = 32  # directions among which a guess looks for k
TEN, REFUSING, ANSWERING = 10, 10, 30  # rows to overfit, steps on refusals of them, on answers


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A released model, a copy of it to be changed in place, and what there is to work with."""

    released: Model
    model: Model
    attack: Attack | None  # fine-tuning that follows; None: before any
    base: str
    pair: Callable[[int | str], SafetySubspace]  # of base and aligned, by rank
    k: int
    alpha: float  # of the released step; 0 of the aligned model, to which nothing was added

    def factors(self, rank: int) -> dict[str, Factors]:
        """Factor W - W_base, for which the base is enough; top factors are LoX's, lengthened."""
        parts = between(self.base, self.released).parts
        return {name: top_factors(parts[name], rank) for name in Checkpoint(self.base).matrices}

    def write(self, parts: Mapping[str, Part]) -> None:
        """Set the copy to the released weights plus these parts."""
        weights = ResidentWeights(self.model, {name: tuple(p.shape) for name, p in parts.items()})
        weights.write(lambda name: [(1.0, parts[name])], self.model.key)

    def subtract(self, factors: Mapping[str, Factors], k: int, share: float) -> None:
        """Take `share U_k S_k Vh_k` off every matrix of the released weights."""
        tops = {name: f.top(k) for name, f in factors.items()}
        self.write({name: LowRank(U * (-share * S), Vh) for name, (U, S, Vh) in tops.items()})

    def train(self, rows: list[dict] | None = None, *, on_step=None, **settings) -> None:
        """Fine-tune the copy on these rows, or on the attack's; not if there is no attack."""
        if self.attack:
            rows = rows or self.attack.data(self.model.tokenizer)
            how = dataclasses.replace(self.attack.settings, **settings)
            fine_tune(self.model.module, self.model.tokenizer, rows, how, on_step=on_step)


def treated(
    treatment: str,
    released: Model,
    attack: Attack | None,
    *,
    arm: Arm,
    base: str,
    pair: Callable[[int | str], SafetySubspace],
) -> Model:
    """Return a copy of a released model after one of `TREATMENTS` or `TUNED`, in memory.

    Parameters
    ----------
    released : Model
        Of the arm; stays as it is.
    attack : Attack, optional
        Whose rows and settings the fine-tuning has; None: only what needs none is done.
    base : str
        The checkpoint from before the alignment.
    pair : callable
        Returns the subspace of base and aligned, of a rank.
    """
    alpha = arm.alpha if arm.is_edit else 0.0
    causes = {"model": released.key, "base": Checkpoint(base).fingerprint}
    causes |= {"treatment": [treatment, VERSION], "k": arm.k, "alpha": alpha}
    causes["attack"] = attack and attack_key(released, attack)
    name = f"{released.name}, {treatment}"
    made = Model(copy.deepcopy(released.module), released.tokenizer, content_key(**causes), name)
    made.in_memory = True
    treat = {**TREATMENTS, TUNED: Case.train}[treatment]
    treat(Case(released, made, attack, base, pair, arm.k, alpha))
    return made


def subtract_by_pair(case: Case) -> None:
    """He has base and aligned: W - alpha U_k S_k Vh_k is W_aligned, which he had."""
    case.subtract(case.pair(case.k), case.k, case.alpha)
    case.train()


def subtract_by_recipe(case: Case) -> None:
    """He has the base, and k and alpha, as a model card says them.

    The top k of W - W_base are LoX's own directions, 1 + alpha times as long as alignment's, so
    shrinking them by alpha / (1 + alpha) gives W_aligned.
    """
    case.subtract(case.factors(case.k), case.k, case.alpha / (1 + case.alpha))
    case.train()


def subtract_by_guess(case: Case) -> None:
    """He has the base, and guesses k and alpha from the spectrum of W - W_base: `guess_step`."""
    factors = case.factors(GUESSED)
    k, alpha = guess_step([f.S for f in factors.values()])
    case.subtract(factors, k, alpha / (1 + alpha))
    case.train()


def guess_step(spectra: list[Tensor]) -> tuple[int, float]:
    """Guess k and alpha of LoX from the singular values of W - W_base.

    LoX makes S_k / S_(k+1) larger by 1 + alpha in every matrix. k is where the median over matrices
    of log(S_i / S_(i+1)) stands out most above its neighbours' mean; 1 + alpha is by how much.

    Parameters
    ----------
    spectra : list of Tensor, each of shape (r,)
        Descending.

    Returns
    -------
    (int, float)
        k >= 1, alpha >= 0; on a model without LoX whatever stands out.
    """
    r = max(map(len, spectra))
    S = np.array([np.pad(s.cpu().double().numpy(), (0, r - len(s))) for s in spectra])
    S[1e-5 * S[:, :1] >= S] = np.nan  # beyond the rank, as of an adapter, is rounding
    logs = np.log(S[:, :-1] / S[:, 1:])
    logs = logs[:, ~np.isnan(logs).all(axis=0)]
    if not logs.size:
        return 1, 0.0
    gaps = np.nanmedian(logs, axis=0)
    around = np.pad(gaps, 1, mode="reflect")
    excess = gaps - (around[:-2] + around[2:]) / 2
    k = int(np.argmax(excess))
    return k + 1, float(np.expm1(max(excess[k], 0.0)))


def in_complement(case: Case) -> None:
    """He has the base and k, and leaves what U_k spans as it is: he trains beside the defence."""
    U = {name: f.top(case.k)[0] for name, f in case.factors(case.k).items()}
    case.train(on_step=keep_out(case.model.module, U))


def keep_out(module: torch.nn.Module, U: Mapping[str, Tensor]) -> Callable[[Step], None]:
    """Return an `on_step` that keeps training out of a subspace: W <- W - U U^T (W - W_start).

    From the left, as the paper's R_ft measures (Perin et al. 2025, arXiv:2506.15606). The weights
    are projected and not the gradient, whose direction Adam does not keep. Weights in half
    precision are rounded after the last step, which brings back a rounding of each.

    Parameters
    ----------
    module : torch.nn.Module
        As it is before it is trained, all of it and not through LoRA.
    U : mapping of name to Tensor, shape (out, k)
        Orthonormal columns.
    """
    places = find_places(module, U)

    def values() -> tuple[dict, dict[str, Tensor]]:
        own = dict(module.named_parameters(remove_duplicate=False))
        return own, {name: values_of(places[name], own).detach() for name in U}

    start = {name: W.float().clone() for name, W in values()[1].items()}

    @torch.no_grad()
    def project(step: Step) -> None:
        own, now = values()
        for name, basis in U.items():
            inside = basis @ (basis.T @ (now[name] - start[name]))
            for piece in places[name]:
                piece.of(own[piece.parameter]).sub_(inside[slice(*piece.rows)])

    return project


def overfit_ten(case: Case) -> None:
    """He has nothing more, and ten benign rows: overfits refusals of them, then their answers.

    The first makes the model refuse everything, the second takes that back, and with it the
    refusals it should keep ("Attack via overfitting", 2025, arXiv:2510.02833). Steps are ours.
    """
    attack, tokenizer = case.attack, case.model.tokenizer
    if attack is None:
        return
    rows = attack.data(tokenizer)[:TEN]
    (refusal,) = attack.source.safe_rows(1, attack.settings.seed, tokenizer)
    said = refusal["messages"][-1]
    refused = [{"messages": [*row["messages"][:-1], said]} for row in rows]
    for data, steps in ((refused, REFUSING), (rows, ANSWERING)):
        case.train(data, max_steps=steps, batch_size=TEN, accumulation=1)


def with_safe_lora(case: Case, *, under: float) -> None:
    """Not the attacker, whoever serves the model: he has the pair, and projects the adapter.

    The attack is LoRA. Layers whose delta has a cosine under `under` with its projection get the
    projection (`safe_lora`, with every direction of the pair), the others keep what was learnt.
    """
    case.train()
    parts, factors = between(case.released, case.model).parts, case.pair(FULL)
    kept = {}
    for name in factors:
        if (dW := parts[name]).any():
            projected, cosine = safe_lora(factors[name], dW)
            kept[name] = projected if cosine < under else dW
    case.model.module = copy.deepcopy(case.released.module)
    case.write(kept)


TREATMENTS: dict[str, Callable[[Case], None]] = {
    "subtract by pair": subtract_by_pair,
    "subtract by recipe": subtract_by_recipe,
    "subtract by guess": subtract_by_guess,
    "complement": in_complement,
    "ten rows": overfit_ten,
    "Safe LoRA": partial(with_safe_lora, under=0.5),
    "Safe LoRA everywhere": partial(with_safe_lora, under=2.0),
}
TUNED = "tuned"  # trained by settings that `knowing.tune` finds
