"""Judges by their names."""

from __future__ import annotations

from collections.abc import Callable

from .local import ClassifierJudge, LlamaGuardJudge
from .protocol import Judge
from .rubric import PolicyJudge
from .rules import KeywordJudge, RuleJudge, TargetJudge

JUDGES: dict[str, Callable[..., Judge]] = {
    "rule": RuleJudge,
    "keyword": KeywordJudge,
    "target": TargetJudge,
    "policy": PolicyJudge,
    "llama-guard": LlamaGuardJudge,
    "classifier": ClassifierJudge.from_file,
}
_TAKES = {  # what may or must follow the name, after a colon
    "policy": "the model as its server calls it, policy:MODEL",
    "llama-guard": "its checkpoint, llama-guard:CHECKPOINT",
    "classifier": "the file that describes it, classifier:FILE.toml",
}


def find_judge(judge: str | Judge, **options) -> Judge:
    """Return the judge of this name, or the judge itself.

    Parameters
    ----------
    judge : str or Judge
        "rule", "keyword", "target", "policy", "policy:MODEL", "llama-guard:CHECKPOINT" or
        "classifier:FILE.toml"; or a judge, which is returned.
    options
        For the judge of this name, such as `base_url` and `limits` for policy.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no judge of this name, or it lacks what it needs.
    """
    if not isinstance(judge, str):
        return judge
    name, colon, argument = judge.partition(":")
    if name not in JUDGES:
        raise ValueError(f"judge {judge!r}: use one of {', '.join(JUDGES)}.")
    if name not in _TAKES and colon:
        raise ValueError(f"judge {judge!r}: the {name} judge takes nothing after its name.")
    if bool(argument) != bool(colon) or (name in _TAKES and name != "policy" and not argument):
        raise ValueError(f"judge {judge!r}: name {_TAKES[name]}.")
    return JUDGES[name](*([argument] if argument else []), **options)
