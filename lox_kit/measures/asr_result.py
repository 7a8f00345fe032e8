"""Every answer and verdict of one model: rates, agreement of judges, and two models compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

from lox_kit.folders import write_whole
from lox_kit.judges import Verdict, is_refusal
from lox_kit.models import Prompt

from .agreement import Paired, pair_up
from .intervals import Mean, Share, share_fields


@dataclasses.dataclass(frozen=True, eq=False)
class AsrResult:
    """Every answer and verdict of one model on one list of prompts."""

    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    verdicts: dict[str, tuple[Verdict, ...]]  # by judge name, one per prompt
    source: dict[str, object]  # model, its key and dtype, batch sizes, template, token limit, ...

    def of_judge(self, judge: str | None = None) -> tuple[Verdict, ...]:
        """Return one judge's verdicts, in the order of the prompts; default the first judge's.

        Raises
        ------
        ValueError
            If that judge has not judged these answers.
        """
        name = judge or next(iter(self.verdicts))
        if name not in self.verdicts:
            raise ValueError(
                f"judge {name!r} has not judged these answers ({', '.join(self.verdicts)} have): "
                "`rescore` adds it without generating again."
            )
        return self.verdicts[name]

    def asr(self, judge: str | None = None, *, of_parsed: bool = False) -> Share:
        """Return the attack success rate by one judge; default the first.

        Parameters
        ----------
        of_parsed : bool
            Divide by the prompts whose verdict could be read, as the paper's code does. By default
            every prompt counts, and an unreadable verdict as not harmful.

        Raises
        ------
        ValueError
            If `of_parsed` is true and no verdict could be read.
        """
        verdicts = self.of_judge(judge)
        read = [v.harmful for v in verdicts if v.parsed]
        if of_parsed and not read:
            raise ValueError(f"none of {len(verdicts)} verdicts could be read: there is no rate.")
        return Share(sum(read), len(read) if of_parsed else len(verdicts))

    def unparsed(self, judge: str | None = None) -> Share:
        """Return the share of verdicts that could not be read."""
        verdicts = self.of_judge(judge)
        return Share(sum(not v.parsed for v in verdicts), len(verdicts))

    def mean_score(self, judge: str | None = None) -> Mean:
        """Return the mean score, on one judge's own scale, of the answers it could read.

        Raises
        ------
        ValueError
            If none could be read.
        """
        verdicts = self.of_judge(judge)
        scores = [v.score for v in verdicts if v.parsed]
        if not scores:
            raise ValueError(f"none of {len(verdicts)} scores could be read: there is no mean.")
        return Mean.of(scores)

    @property
    def refusal(self) -> Share:
        """Share of answers that refuse."""
        return Share(sum(map(is_refusal, self.responses)), len(self.responses))

    def refusal_of(self, label: str) -> Share:
        """Share of the requests labelled "safe" or "unsafe" that are refused; n may be 0."""
        pairs = zip(self.prompts, self.responses, strict=True)
        refused = [is_refusal(response) for prompt, response in pairs if prompt.label == label]
        return Share(sum(refused), len(refused))

    @property
    def empty(self) -> Share:
        """Share of answers without a word."""
        return Share(sum(not r.strip() for r in self.responses), len(self.responses))

    @property
    def degenerate(self) -> Share:
        """Share of answers that are empty or repeat themselves: a broken model looks safe."""
        return Share(sum(map(is_degenerate, self.responses)), len(self.responses))

    @property
    def agreement(self) -> list[Paired]:
        """Each two judges' verdicts crossed, prompts that one of them could not read left out."""
        read = {n: _readings(verdicts) for n, verdicts in self.verdicts.items()}
        return [pair_up(a, read[a], b, read[b]) for a, b in combinations(read, 2)]

    def summary(self) -> dict:
        """Return the shares as plain data: value, low, high, count, n of each.

        A judge some of whose verdicts could not be read has three lines: its rate of all prompts,
        its rate of those it could read, and how many it could not. Where requests are labelled safe
        and unsafe, as XSTest's are, the refusal of each is there, and their difference: 1 for a
        model that knows one from the other.
        """
        shares = {}
        for name in self.verdicts:
            shares[f"asr ({name})"] = self.asr(name)
            unparsed = self.unparsed(name)
            if 0 < unparsed.count < unparsed.n:
                shares[f"asr ({name}), of the parsed"] = self.asr(name, of_parsed=True)
            if unparsed.count:
                shares[f"unparsed ({name})"] = unparsed
        shares |= {"refusal": self.refusal, "degenerate": self.degenerate, "empty": self.empty}
        shares = {name: share_fields(share) for name, share in shares.items()}
        unsafe, safe = self.refusal_of("unsafe"), self.refusal_of("safe")
        if unsafe.n and safe.n:
            ends = dict(zip(("value", "low", "high"), unsafe.minus(safe), strict=True))
            shares["refusal of unsafe"] = share_fields(unsafe)
            shares["refusal of safe"] = share_fields(safe)
            shares["unsafe minus safe"] = {**ends, "n": unsafe.n + safe.n}
        return shares

    def to_frame(self):
        """Return one row per prompt: text, response, refused, degenerate, and by each judge
        harmful, score, reason and parsed.
        """
        import pandas as pd

        columns = {
            "prompt": [p.text for p in self.prompts],
            "response": self.responses,
            "refused": [is_refusal(r) for r in self.responses],
            "degenerate": [is_degenerate(r) for r in self.responses],
        }
        for name, verdicts in self.verdicts.items():
            for field in ("harmful", "score", "reason", "parsed"):
                columns[f"{field} ({name})"] = [getattr(v, field) for v in verdicts]
        return pd.DataFrame(columns)

    def save(self, file: str | Path) -> Path:
        """Write everything, answers included, as JSON."""
        return write_whole(file, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, file: str | Path) -> AsrResult:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it holds no such result.
        """
        try:
            data = json.loads(Path(file).read_text(encoding="utf-8"))
            prompts = tuple(Prompt(**p) for p in data["prompts"])
            verdicts = {
                name: tuple(Verdict(**v) for v in made) for name, made in data["verdicts"].items()
            }
            responses, source = data["responses"], data["source"]
            if not isinstance(responses, list) or not isinstance(source["model"], str):
                raise TypeError("responses or source of another kind")
            if {len(prompts)} != {len(responses), *map(len, verdicts.values())} or not prompts:
                raise ValueError("not as many responses and verdicts as prompts, or none")
            return cls(prompts, tuple(responses), verdicts, source)
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{file}: not a result that `lox asr --save` wrote ({error!r})."
            ) from error


def _readings(verdicts: Sequence[Verdict]) -> list[bool | None]:
    """Return harmful or not, None where the verdict could not be read."""
    return [v.harmful if v.parsed else None for v in verdicts]


def compare(a: AsrResult, b: AsrResult, judge: str | None = None) -> Paired:
    """Compare two models on the same prompts, as one judge sees them: exact McNemar.

    Paired by prompt, which sees far smaller differences than two intervals do: prompts on which
    both models do the same say nothing about which is safer.

    Returns
    -------
    Paired
        `only_first`, `only_second`: prompts harmful with one model alone; `p_value`, two-sided.

    Raises
    ------
    ValueError
        If the prompts differ, or were judged by another judge or version of it.
    """
    if [p.text for p in a.prompts] != [p.text for p in b.prompts]:
        raise ValueError(
            f"{a.source['model']} and {b.source['model']} answered different prompts "
            f"({len(a.prompts)} and {len(b.prompts)}): measure both on one list."
        )
    name = judge or next(iter(a.verdicts))
    one, other = a.of_judge(name), b.of_judge(name)
    versions = [r.source["judges"][name] for r in (a, b)]
    if versions[0] != versions[1]:
        raise ValueError(
            f"the {name} judge was version {versions[0]} for {a.source['model']} and "
            f"{versions[1]} for {b.source['model']}: rescore one of them."
        )
    first, second = a.source["model"], b.source["model"]
    if first == second:  # one model in two settings
        first, second = f"{first} (first)", f"{second} (second)"
    return pair_up(first, _readings(one), second, _readings(other))


def is_degenerate(response: str) -> bool:
    """Whether an answer is empty, or mostly one word or one phrase over and over."""
    words = response.split()
    if len(words) < 2:
        return True
    pairs = list(pairwise(words))
    return len(pairs) >= 8 and len(set(pairs)) <= len(pairs) / 3
