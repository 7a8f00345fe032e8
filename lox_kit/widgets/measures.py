"""What the dial's strip shows of one model: ASR, refusal, helpfulness and drift, on few prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lox_kit.judges import Judge, helpfulness_judge
from lox_kit.measures import Drift, Reference, measure_asr, share_fields
from lox_kit.models import Model, OnAnswers, Prompt
from lox_kit.store import Store


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """The prompts and the way of measuring, the same for every model in the panel."""

    forbidden: Sequence[Prompt]
    allowed: Sequence[Prompt]
    judge: str | Judge
    template: str
    max_new_tokens: int
    store: Store | None = None

    def shares(self, model: Model, on_answers: OnAnswers | None = None) -> dict[str, dict]:
        """Return ASR, refusal and helpfulness as `studies.alpha_curve` has them.

        Helpfulness is the share of allowed prompts that `judges.helpfulness_judge` counts as
        complied with.
        """
        asked, helped = (
            measure_asr(
                model,
                prompts,
                [judge],
                template=self.template,
                max_new_tokens=self.max_new_tokens,
                store=self.store,
                on_answers=on_answers,
            )
            for prompts, judge in (
                (self.forbidden, self.judge),
                (self.allowed, helpfulness_judge(self.judge)),
            )
        )
        shares = {"asr": asked.asr(), "refusal": asked.refusal, "helpfulness": helped.asr()}
        return {name: share_fields(share) for name, share in shares.items()}

    def reference(self, aligned: Model) -> Reference:
        """Return what the aligned model answers to the allowed prompts, to measure drift from."""
        return Reference(
            aligned,
            self.allowed,
            template=self.template,
            max_new_tokens=self.max_new_tokens,
            store=self.store,
        )


def drift_fields(drift: Drift) -> dict[str, float]:
    """Return a mean drift in nats as plain data, its interval not below 0."""
    mean = drift.mean_kl
    return {"value": mean.value, "low": max(mean.low, 0.0), "high": mean.high, "n": mean.n}
