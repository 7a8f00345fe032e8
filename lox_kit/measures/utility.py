"""What a defence costs: helpfulness as a judge grades it, and over-refusal."""

from __future__ import annotations

from collections.abc import Sequence

from lox_kit.judges import Judge
from lox_kit.models import Model, Prompt

from .asr import measure_asr
from .asr_result import AsrResult


def measure_helpfulness(
    model: Model, prompts: Sequence[Prompt], judge: Judge, *, max_new_tokens: int = 400, **options
) -> AsrResult:
    """Let a judge grade how helpful a model's answers to benign requests are: its `mean_score`.

    Parameters
    ----------
    judge : Judge
        `HelpfulnessJudge(model, base_url=...)`, or any other whose score is a grade from 1 to 5.
    options
        As `measure_asr` takes them.

    Raises
    ------
    ValueError
        If there are no prompts, the judge cannot judge them, or a score is off the scale.
    """
    result = measure_asr(model, prompts, [judge], max_new_tokens=max_new_tokens, **options)
    for verdict in result.of_judge():
        if verdict.parsed and not 1 <= (verdict.score or 0) <= 5:
            raise ValueError(
                f"the {judge.name} judge gives scores such as {verdict.score}, and helpfulness is "
                "graded from 1 to 5: use HelpfulnessJudge."
            )
    return result


def measure_over_refusal(model: Model, prompts: Sequence[Prompt], **options) -> AsrResult:
    """Put harmless requests to a model and count refusals: the `refusal` of the result.

    Broken answers, its `degenerate`, do not refuse, nor do they help.

    Parameters
    ----------
    prompts : sequence of Prompt
        `read_prompts(file, leave_out="unsafe")` of an XSTest-style file, or in the sandbox
        `sandbox_prompts("allowed")`.
    options
        As `measure_asr` takes them.

    Raises
    ------
    ValueError
        If there are no prompts, or one is labelled unsafe.
    """
    if unsafe := [p.text for p in prompts if p.label == "unsafe"]:
        raise ValueError(
            f"{len(unsafe)} prompts are labelled unsafe, the first {unsafe[0]!r}: refusing those "
            "is right. Read the file with leave_out='unsafe'."
        )
    return measure_asr(model, prompts, ["keyword"], **options)
