"""How well a judge reads the answers of one model to one kind of request: its card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from lox_kit.folders import write_whole
from lox_kit.judges import Judge, find_judge
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage

from .agreement import Paired, pair_up
from .asr_result import AsrResult
from .intervals import Share, sampled_share, true_share
from .sheets import Answered


@dataclasses.dataclass(frozen=True)
class Reading:
    """What people and a judge say of one answer, without its words."""

    prompt: str  # hash of the request
    answer: str  # hash of request and answer
    model: str  # who answered
    kind: str  # of request, as the labelled file has it
    people: bool  # harmful
    judge: bool


@dataclasses.dataclass(frozen=True)
class JudgeCard:
    """A judge's readings of answers that people labelled.

    Harmful is what is looked for: the answer did what was asked. So the sensitivity is the share
    that the judge calls harmful of what people call harmful, and the specificity the share that it
    calls harmless of the rest. An unreadable verdict counts as not harmful, as in an ASR.
    """

    judge: str
    version: str
    data: str  # hash of the readings
    readings: tuple[Reading, ...]

    def groups(self) -> dict[str, Paired]:
        """Return people and the judge crossed: of all, of each model, of each kind of request."""
        groups = {"all": list(self.readings)}
        for name in ("model", "kind"):
            values = sorted({getattr(r, name) for r in self.readings})
            for value in values if len(values) > 1 else ():
                of = [r for r in self.readings if getattr(r, name) == value]
                groups[f"{name} {value or 'not said'}"] = of
        return {name: _crossed(readings) for name, readings in groups.items()}

    def correct(self, result: AsrResult, *, seed: int = 0) -> dict:
        """Return the ASR of a result as people would have it, where the card is of its kind.

        A card does not travel: the same judge may read one model well and another badly. So the
        result must be judged by the card's judge in its version; be of one of the card's models,
        whose name is the result's model, the last part of that (`name` of `org/name`), or its
        fingerprint; and its requests must be the card's: either all of the result's are in the
        card, or all of the card's in the result. Only the readings of its requests are taken.

        Where these are of the result's own answers, as on a sheet of `write_sheet`, it is
        `sampled_share`; otherwise Rogan-Gladen, `true_share`.

        Returns
        -------
        dict
            `value`, `low` and `high` (95 %), `judge`, `card`, `labelled` (answers), `method`, and
            the two shares that it takes, such as `sensitivity` and `specificity`, as text.

        Raises
        ------
        ValueError
            If the card is not of this judge, model or kind of request, or too little is labelled.
        """
        readings, rate = self._fitting(result), result.asr(self.judge)
        answers = zip(result.prompts, result.responses, strict=True)
        own = {text_key(prompt.text, response) for prompt, response in answers}
        table = _crossed(readings)
        method, correct, shares = "Rogan-Gladen", true_share, sensitivity_specificity(table)
        if own >= {r.answer for r in readings}:
            right = Share(table.both, table.both + table.only_second)
            missed = Share(table.only_first, table.only_first + table.neither)
            method, correct = "a sample labelled", sampled_share
            shares = {"right": right, "missed": missed}
        value, low, high = correct(rate, *shares.values(), seed=seed)
        about = {"judge": self.judge, "card": self.data, "labelled": table.n, "method": method}
        counts = {name: f"{share.count}/{share.n}" for name, share in shares.items()}
        return {"value": value, "low": low, "high": high, **about, **counts}

    def _fitting(self, result: AsrResult) -> list[Reading]:
        """Return the readings of a result's model and requests; ValueError if there are none."""
        version = result.source["judges"].get(self.judge)
        if version != self.version:
            found = f"version {version}" if version else "not among the judges"
            raise ValueError(f"it is of {self.judge} {self.version}, here {found}.")
        name, key = str(result.source["model"]), result.source.get("key")
        names = {text.casefold() for text in (name, name.rpartition("/")[2], key) if text}
        readings = [r for r in self.readings if r.model.casefold() in names]
        if not readings:
            models = ", ".join(sorted({r.model or "not said" for r in self.readings}))
            raise ValueError(f"it comes from other models ({models}), here {name}.")
        asked, carded = {text_key(p.text) for p in result.prompts}, {r.prompt for r in readings}
        if not (asked <= carded or carded <= asked):
            both = f"{len(asked & carded)} of {len(asked)} are in both"
            raise ValueError(f"it comes from other requests ({both}).")
        return [r for r in readings if r.prompt in asked]

    def __str__(self) -> str:
        shares = sensitivity_specificity(_crossed(self.readings)).items()
        said = ", ".join(f"{name} {share if share.n else '-'}" for name, share in shares)
        return f"{self.judge} {self.version} on {len(self.readings)} labelled answers: {said}"

    def save(self, file: str | Path) -> Path:
        """Write the card as JSON; it holds no answers."""
        return write_whole(file, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, file: str | Path) -> JudgeCard:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it holds no card.
        """
        try:
            return cls._of(json.loads(Path(file).read_text(encoding="utf-8")))
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not a card of `lox judge-card` ({error!r}).") from error

    @classmethod
    def _of(cls, data: dict) -> JudgeCard:
        """Return the card of plain data."""
        return cls(**data | {"readings": tuple(Reading(**r) for r in data["readings"])})

    @classmethod
    def stored(cls, store: Store) -> list[JudgeCard]:
        """Return the cards in a store, the one made last first."""
        return [cls._of(data) for data in store.all("card").values()]


def judge_card(
    judge: str | Judge,
    labelled: Sequence[Answered],
    *,
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> tuple[JudgeCard, list[dict]]:
    """Let a judge read answers that people labelled (`read_labelled`), and cross the two.

    With a store the verdicts are kept, and the card, under the judge and the data.

    Returns
    -------
    (JudgeCard, list of dict)
        The card, and the answers that the judge reads otherwise than people do: prompt, response,
        people, judge (harmful by them), reason, model and kind.

    Raises
    ------
    ValueError, JudgingError
        If the judge cannot judge these answers, or has to stop.
    """
    judge = find_judge(judge)
    prompts, responses = [a.prompt for a in labelled], [a.response for a in labelled]
    judge.check(SimpleNamespace(name=labelled[0].model or "the model", is_sandbox=False), prompts)
    verdicts = judge.judge(prompts, responses, store=store, on_stage=on_stage)
    readings, apart = [], []
    for a, v in zip(labelled, verdicts, strict=True):
        words = {"prompt": a.prompt.text, "response": a.response, "reason": v.reason}
        said = {"model": a.model, "kind": a.kind, "people": bool(a.harmful), "judge": v.harmful}
        keys = text_key(a.prompt.text), text_key(a.prompt.text, a.response)
        readings.append(Reading(*keys, **said))
        if v.harmful != a.harmful:
            apart.append(words | said)
    data = content_key(rows=[[r.answer, r.model, r.kind, r.people] for r in readings])
    card = JudgeCard(judge.name, judge.version, data, tuple(readings))
    if store:
        key = content_key(judge=card.judge, version=card.version, data=data)
        store.put("card", key, dataclasses.asdict(card))
    return card, apart


def text_key(*texts: str) -> str:
    """Return the hash of texts, any blanks as one: a spreadsheet changes line ends."""
    return content_key(texts=[" ".join(text.split()) for text in texts])


def sensitivity_specificity(table: Paired) -> dict[str, Share]:
    """Return both, by name, of people and a judge crossed."""
    return {
        "sensitivity": Share(table.both, table.both + table.only_first),
        "specificity": Share(table.neither, table.neither + table.only_second),
    }


def _crossed(readings: Sequence[Reading]) -> Paired:
    """Return people and the judge crossed."""
    return pair_up("people", [r.people for r in readings], "judge", [r.judge for r in readings])
