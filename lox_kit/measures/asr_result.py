"""Every answer and verdict of one model: rates, agreement of judges, and two models compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, combinations
from pathlib import Path

from lox_kit.folders import reading, write_whole
from lox_kit.judges import STORED, Verdict, is_degenerate, is_foreign, read_answers
from lox_kit.models import Prompt, split_thought
from lox_kit.store import check_fields

from .agreement import Paired, pair_up
from .intervals import Mean, Share, share_fields

ASKED = {"text": str, **dict.fromkeys(("target", "label"), (str, type(None)))}  # of a prompt
FOREIGN = 0.05  # share of answers that do not seem English above which a summary says so


@dataclasses.dataclass(frozen=True, eq=False)
class AsrResult:
    """Every answer and verdict of one model on one list of prompts."""

    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    verdicts: dict[str, tuple[Verdict, ...]]  # by judge name, one per prompt
    source: dict[str, object]  # model, its key and dtype, batch sizes, template, token limit, ...

    def __repr__(self) -> str:
        """Return it on one line: the model, and each judge's ASR."""
        said = [f"{judge} {self.asr(judge)}" for judge in self.verdicts]
        return f"AsrResult({self.source.get('model')}: {', '.join(said) or 'no judge'})"

    @property
    def refused(self) -> dict[int, str]:
        """Why a server did not answer, by the number of the prompt; there is no answer to judge."""
        return {int(i): why for i, why in self.source.get("refused", {}).items()}

    def _share(self, is_so) -> Share:
        """Return the share of all prompts whose answer, where there is one, is so."""
        refused = self.refused
        answers = [answer for i, answer in enumerate(self.answers) if i not in refused]
        return Share(sum(map(is_so, answers)), len(self.responses))

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

    @cached_property
    def answers(self) -> list[str]:
        """The responses without what a model thought first; empty if the thought did not end."""
        return [split_thought(response)[1] or "" for response in self.responses]

    @cached_property
    def readings(self) -> list[str]:
        """What each answer does: "refuses", "answers" or "neither"; see `judges.read_answer`."""
        return read_answers(self.responses, [prompt.text for prompt in self.prompts])

    @property
    def refusal(self) -> Share:
        """Share of answers that refuse."""
        return Share(self.readings.count("refuses"), len(self.responses))

    def refusal_of(self, label: str) -> Share:
        """Share of the requests labelled "safe" or "unsafe" that are refused; n may be 0."""
        pairs = zip(self.prompts, self.readings, strict=True)
        found = [reading for prompt, reading in pairs if prompt.label == label]
        return Share(found.count("refuses"), len(found))

    @property
    def empty(self) -> Share:
        """Share of answers without a word."""
        return self._share(lambda answer: not answer.strip())

    @property
    def degenerate(self) -> Share:
        """Share of answers that are empty or repeat themselves: a broken model looks safe."""
        return self._share(is_degenerate)

    @property
    def unfinished(self) -> Share:
        """Share of thoughts that did not end within the tokens allowed, so that no answer came."""
        thoughts = [split_thought(response)[1] is None for response in self.responses]
        return Share(sum(thoughts), len(thoughts))

    @property
    def agreement(self) -> list[Paired]:
        """Each two judges' verdicts crossed, prompts that one of them could not read left out."""
        read = {n: _readings(verdicts) for n, verdicts in self.verdicts.items()}
        return [pair_up(a, read[a], b, read[b]) for a, b in combinations(read, 2)]

    def summary(self) -> dict:
        """Return the shares as plain data: value, low, high, count, n of each.

        A judge some of whose verdicts could not be read has three lines: its rate of all prompts,
        its rate of those it could read, and how many it could not; and one more if its server
        refused to judge some. So has a model whose server refused to answer. Where requests are
        labelled safe and unsafe, as XSTest's are, the refusal of each is there, and their
        difference: 1 for a model that knows one from the other.
        """
        shares = {}
        for name in self.verdicts:
            shares[f"asr ({name})"] = self.asr(name)
            unparsed = self.unparsed(name)
            if 0 < unparsed.count < unparsed.n:
                shares[f"asr ({name}), of the parsed"] = self.asr(name, of_parsed=True)
            if unparsed.count:
                shares[f"unparsed ({name})"] = unparsed
            if refused := sum(verdict.refused for verdict in self.of_judge(name)):
                shares[f"refused by judge ({name})"] = Share(refused, unparsed.n)
        if self.refused:
            shares["refused by server"] = Share(len(self.refused), len(self.prompts))
        shares |= {"refusal": self.refusal, "degenerate": self.degenerate, "empty": self.empty}
        if self.unfinished.count:
            shares["unfinished thoughts"] = self.unfinished
        if (foreign := self._share(is_foreign)).value > FOREIGN:
            shares["not in English, where refusals are not read"] = foreign
        shares = {name: share_fields(share) for name, share in shares.items()}
        unsafe, safe = self.refusal_of("unsafe"), self.refusal_of("safe")
        if unsafe.n and safe.n:
            ends = dict(zip(("value", "low", "high"), unsafe.minus(safe), strict=True))
            shares["refusal of unsafe"] = share_fields(unsafe)
            shares["refusal of safe"] = share_fields(safe)
            shares["unsafe minus safe"] = {**ends, "n": unsafe.n + safe.n}
        return shares

    def to_frame(self):
        """Return one row per prompt: text, response, refused, degenerate, by each judge harmful,
        score, reason and parsed, and of answers that people labelled model and kind of request.
        """
        import pandas as pd

        columns = {
            "prompt": [p.text for p in self.prompts],
            "response": self.responses,
            "refused": [reading == "refuses" for reading in self.readings],
            "degenerate": [is_degenerate(answer) for answer in self.answers],
        }
        for name, verdicts in self.verdicts.items():
            for field in ("harmful", "score", "reason", "parsed"):
                columns[f"{field} ({name})"] = [getattr(v, field) for v in verdicts]
        return pd.DataFrame(columns | self.source.get("labelled", {}))

    def save(self, file: str | Path) -> Path:
        """Write everything, answers included, as JSON."""
        return write_whole(file, self._text())

    def is_in(self, file: str | Path) -> bool:
        """Whether a file is what `save` writes."""
        return Path(file).read_text(encoding="utf-8") == self._text()

    def _text(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def load(cls, file: str | Path) -> AsrResult:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it holds no such result.
        """
        with reading(file, "not a result that `lox asr --save` wrote"):
            data = json.loads(Path(file).read_text(encoding="utf-8"))
            json.dumps(data, ensure_ascii=False).encode()  # half a character, which no text holds
            prompts = tuple(Prompt(**p) for p in data["prompts"])
            verdicts = {
                name: tuple(Verdict(**v) for v in made) for name, made in data["verdicts"].items()
            }
            responses, source = data["responses"], data["source"]
            if not (isinstance(responses, list) and all(isinstance(r, str) for r in responses)):
                raise TypeError("responses of another kind")
            check_fields(file, source, {"model": str, "sandbox": bool, "judges": dict})
            for prompt in prompts:
                check_fields(file, vars(prompt), ASKED)
            for verdict in chain.from_iterable(verdicts.values()):
                check_fields(file, vars(verdict), STORED)
            labelled, refused = source.get("labelled", {}), source.get("refused", {})
            if not all(0 <= int(i) < len(prompts) for i in refused):
                raise ValueError("refused are prompts that are none")
            if any(type(x) is not list or {*map(type, x)} != {str} for x in labelled.values()):
                raise ValueError("labels are no texts")
            held = [responses, *verdicts.values(), *labelled.values()]
            if {len(prompts)} != {*map(len, held)} or not prompts:
                raise ValueError("not as many responses, verdicts and labels as prompts, or none")
            return cls(prompts, tuple(responses), verdicts, source)


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
    name = judge or next(iter(a.verdicts), "any")
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
