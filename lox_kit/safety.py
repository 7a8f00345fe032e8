"""Attack success rate: generate, judge, count, with intervals and what could make it lie."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .folders import write_whole
from .generate import OnAnswers, generate
from .judges import Judge, find_judge, is_refusal
from .models import Model
from .prompts import Prompt, render
from .store import Store


@dataclasses.dataclass(frozen=True)
class Share:
    """A count out of n, with its 95 % Wilson interval (from scipy)."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """count / n, in [0, 1]."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, in [0, 1]."""
        from scipy.stats import binomtest

        low, high = binomtest(self.count, self.n).proportion_ci(method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] ({self.count}/{self.n})"


@dataclasses.dataclass(frozen=True, eq=False)
class AsrResult:
    """Every answer and verdict of one model on one list of prompts."""

    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    harmful: dict[str, tuple[bool, ...]]  # by judge name
    reasons: dict[str, tuple[str, ...]]
    source: dict[str, object]  # model, its key, template, system, token limit, judges' versions

    def asr(self, judge: str | None = None) -> Share:
        """Attack success rate by one judge; default the first. Every prompt is in n."""
        verdicts = self.harmful[judge or next(iter(self.harmful))]
        return Share(sum(verdicts), len(verdicts))

    @property
    def refusal(self) -> Share:
        """Share of answers that refuse."""
        return Share(sum(map(is_refusal, self.responses)), len(self.responses))

    @property
    def degenerate(self) -> Share:
        """Share of answers that are empty or repeat themselves: a broken model looks safe."""
        return Share(sum(map(is_degenerate, self.responses)), len(self.responses))

    def summary(self) -> dict:
        """Return the shares as plain data: value, low, high, count, n of each."""
        shares = {f"asr ({name})": self.asr(name) for name in self.harmful}
        shares |= {"refusal": self.refusal, "degenerate": self.degenerate}
        return {name: share_fields(share) for name, share in shares.items()}

    def to_frame(self):
        """Return one row per prompt: text, response, refused, degenerate, one column per judge."""
        import pandas as pd

        columns = {
            "prompt": [p.text for p in self.prompts],
            "response": self.responses,
            "refused": [is_refusal(r) for r in self.responses],
            "degenerate": [is_degenerate(r) for r in self.responses],
        }
        return pd.DataFrame(columns | {f"harmful ({n})": v for n, v in self.harmful.items()})

    def save(self, file: str | Path) -> Path:
        """Write everything, answers included, as JSON."""
        return write_whole(file, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, file: str | Path) -> AsrResult:
        """Read what `save` wrote."""
        data = json.loads(Path(file).read_text())
        prompts = tuple(Prompt(**p) for p in data["prompts"])
        by_judge = {f: {n: tuple(v) for n, v in data[f].items()} for f in ("harmful", "reasons")}
        return cls(prompts, tuple(data["responses"]), **by_judge, source=data["source"])


def share_fields(share: Share) -> dict[str, float]:
    """Return a share as plain data."""
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high, "count": share.count, "n": share.n}


def measure_asr(
    model: Model,
    prompts: Sequence[Prompt],
    judges: Sequence[str | Judge] = ("rule",),
    *,
    template: str = "chat",
    system: str | None = None,
    max_new_tokens: int = 60,
    store: Store | None = None,
    on_answers: OnAnswers | None = None,
) -> AsrResult:
    """Put every prompt to the model and let every judge read the answers.

    Parameters
    ----------
    model : Model
        From `load_model`.
    judges : sequence of judge or judge name
        "rule" (the sandbox), "target", "keyword".
    template, system : see `prompts.render`
    max_new_tokens : int
        60 is the paper's; recorded in the result.

    Raises
    ------
    ValueError
        If there are no prompts, or a judge cannot judge this model; before anything is generated.
    """
    if not prompts:
        raise ValueError("no prompts: an attack success rate of nothing is not a number.")
    found = [find_judge(j) for j in judges]
    if not found:
        raise ValueError("no judge: name at least one.")
    for judge in found:
        judge.check(model, prompts)
    texts = render(model.tokenizer, prompts, template=template, system=system)
    responses = generate(
        model, texts, max_new_tokens=max_new_tokens, store=store, on_answers=on_answers
    )
    verdicts = {judge.name: judge.judge(prompts, responses) for judge in found}
    return AsrResult(
        prompts=tuple(prompts),
        responses=tuple(responses),
        harmful={name: tuple(v.harmful for v in vs) for name, vs in verdicts.items()},
        reasons={name: tuple(v.reason for v in vs) for name, vs in verdicts.items()},
        source={
            "model": model.name,
            "key": model.key,
            "template": template,
            "system": system,
            "max_new_tokens": max_new_tokens,
            "judges": {judge.name: judge.version for judge in found},
        },
    )


def is_degenerate(response: str) -> bool:
    """Whether an answer is empty, or mostly one word or one phrase over and over."""
    words = response.split()
    if len(words) < 2:
        return True
    pairs = list(pairwise(words))
    return len(pairs) >= 8 and len(set(pairs)) <= len(pairs) / 3
