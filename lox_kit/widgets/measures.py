"""What panels ask, and what the dial's strip shows: ASR, refusal, helpfulness and drift."""

from __future__ import annotations

from collections.abc import Sequence

from lox_kit.judges import Judge, helpfulness_judge
from lox_kit.measures import (
    KINDS,
    TOKENS,
    Drift,
    Questions,
    Reference,
    measure_asr,
    share_fields,
)
from lox_kit.models import Model, Prompt, sandbox_prompts
from lox_kit.progress import OnStage
from lox_kit.store import Store


def questions_for(
    sandbox: bool,
    few: int,
    forbidden: Sequence[Prompt] | None,
    allowed: Sequence[Prompt] | None,
    judge: str | Judge | None,
    template: str,
    max_new_tokens: int | None,
) -> tuple[Questions, bool]:
    """Return what a panel asks, and whether its prompts are the sandbox's own.

    Parameters
    ----------
    sandbox : bool
        Whether the model is the sandbox's: without prompts it is then asked development prompts.
    few : int
        How many of these of each kind.
    judge : str or Judge, optional
        Default "rule" in the sandbox, "keyword" elsewhere.
    max_new_tokens : int, optional
        Default 24 in the sandbox, whose answers are short, 60 elsewhere.
    """
    own = sandbox and forbidden is None and allowed is None
    if own:
        forbidden, allowed = (sandbox_prompts(kind, "dev", few) for kind in KINDS)
    judge = judge or ("rule" if sandbox else "keyword")
    tokens = max_new_tokens or (TOKENS if sandbox else 60)
    return Questions(tuple(forbidden or ()), tuple(allowed or ()), judge, template, tokens), own


def measure_shares(
    model: Model,
    questions: Questions,
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> dict[str, dict]:
    """Return ASR, refusal and helpfulness as `studies.alpha_curve` has them.

    Helpfulness is the share of allowed prompts that `judges.helpfulness_judge` counts as
    complied with.
    """
    judges = {"forbidden": questions.judge, "allowed": helpfulness_judge(questions.judge)}
    asked, helped = (
        measure_asr(
            model,
            getattr(questions, kind),
            [judge],
            template=questions.template,
            max_new_tokens=questions.max_new_tokens,
            store=store,
            on_stage=on_stage,
        )
        for kind, judge in judges.items()
    )
    shares = {"asr": asked.asr(), "refusal": asked.refusal, "helpfulness": helped.asr()}
    return {name: share_fields(share) for name, share in shares.items()}


def drift_reference(aligned: Model, questions: Questions, store: Store | None = None) -> Reference:
    """Return what the aligned model answers to the allowed prompts, to measure drift from."""
    return Reference(
        aligned,
        questions.allowed,
        template=questions.template,
        max_new_tokens=questions.max_new_tokens,
        store=store,
    )


def drift_fields(drift: Drift) -> dict[str, float]:
    """Return a mean drift in nats as plain data, its interval not below 0."""
    mean = drift.mean_kl
    return {"value": mean.value, "low": max(mean.low, 0.0), "high": mean.high, "n": mean.n}
