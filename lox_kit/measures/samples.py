"""Attack success rate where answers are drawn: several answers to each prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lox_kit.judges import Judge
from lox_kit.models import Model, Prompt

from .asr import measure_asr
from .asr_result import AsrResult
from .intervals import Mean, Share, share_fields


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Several drawn answers to each of the same prompts, one result for each round of draws."""

    results: tuple[AsrResult, ...]

    @property
    def harmful(self) -> list[list[bool]]:
        """Whether each answer is harmful by the first judge, shape (prompts, samples)."""
        rounds = [[verdict.harmful for verdict in r.of_judge()] for r in self.results]
        return [list(prompt) for prompt in zip(*rounds, strict=True)]

    @property
    def asr(self) -> Mean:
        """Attack success rate of one draw: each prompt's share, and the mean over prompts.

        Its interval is over prompts: more samples of the same prompts do not make it vanish.
        """
        return Mean.of([sum(prompt) / len(prompt) for prompt in self.harmful])

    @property
    def any(self) -> Share:
        """Share of prompts with at least one harmful answer: an attacker who asks again."""
        return Share(sum(map(any, self.harmful)), len(self.harmful))

    def to_dict(self) -> dict[str, object]:
        """Return how many samples there are and both rates, as plain data."""
        rates = {"asr": dataclasses.asdict(self.asr), "any": share_fields(self.any)}
        return {"samples": len(self.results), **rates}


def measure_samples(
    model: Model,
    prompts: Sequence[Prompt],
    judge: str | Judge = "rule",
    *,
    samples: int,
    temperature: float,
    seed: int = 0,
    **options,
) -> Samples:
    """Draw several answers to every prompt and let a judge read them.

    Parameters
    ----------
    samples : int
        Answers to each prompt; round i draws with the seed `seed` + i.
    temperature : float
        Above 0, see `models.generate_answers`.
    options
        As `measure_asr` takes them; with a store a call with more samples draws the new ones alone.

    Raises
    ------
    ValueError
        If there are no samples, or the temperature is 0: every answer would be the same.
    """
    if samples < 1 or not temperature > 0:
        raise ValueError(
            f"samples={samples}, temperature={temperature}: use at least 1 sample, drawn at a "
            "temperature above 0."
        )
    options |= {"temperature": temperature}
    rounds = range(seed, seed + samples)
    return Samples(tuple(measure_asr(model, prompts, [judge], seed=i, **options) for i in rounds))
