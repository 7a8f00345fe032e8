"""One entry of a table of attacks: a model of an arm, attacked or not, and measured.

Every entry is computed on its own from plain data, in this process or in a worker of any
`concurrent.futures.Executor`. This process alone writes the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager, nullcontext
from functools import cache, lru_cache, partial
from pathlib import Path

from lox_kit.attacks import (
    SAFEINST,
    SETS,
    Attack,
    attack_key,
    autocast_dtype,
    check_language,
    find_attack,
    load_run,
    run_attack,
    sets_folder,
)
from lox_kit.extrapolation import LoxDial, SafetySubspace
from lox_kit.folders import locked, remove_folder
from lox_kit.judges import find_judge
from lox_kit.measures import (
    Questions,
    Reference,
    measure,
    measure_gsm8k,
    read_gsm8k,
    read_requests,
    share_fields,
    task_prompts,
)
from lox_kit.models import Model, Prompt, load_model, load_tokenizer, pick_device, render
from lox_kit.store import NUMBER, SHARES, MemoryStore, Store, content_key
from lox_kit.threads import OnStage, as_finished, tell
from lox_kit.weights import Checkpoint

from .arms import Arm, arm_model
from .treatments import VERSION, treated

TASK_PROMPTS = 200
MEAN = ("value", "low", "high", "n")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One cell of the table, as plain data that any process can compute."""

    base: str
    aligned: str
    content: tuple[str, str]  # fingerprints of the two: another model under the old path is another
    arm: Arm
    attack: Attack | None  # None: before any attack
    task_of: Attack | None  # the attack whose own task is asked
    lora: bool
    seed: int
    system: str | None  # a persona under which safety is measured as well
    rank: int | str  # of the factoring that serves every arm of the table
    treatment: str = ""  # of `TREATMENTS`, done in memory in place of the usual attack

    @property
    def name(self) -> str | None:
        """The attack's name and the treatment's; None before either."""
        return ", ".join(filter(None, (self.attack and self.attack.name, self.treatment))) or None

    def row(self, measures: dict, readings: dict) -> dict:
        """Return the row of an `AttackTable` that this entry is."""
        names = {"attack": self.name, "training": "LoRA" if self.lora else "full"}
        names |= {"arm": self.arm.name, "seed": self.seed}
        return {**names, "measures": measures, "readings": readings}

    def find_attack(self):
        """Return the attack with this entry's settings."""
        share = SAFEINST if self.arm.kind == "SafeInst" else self.attack.safe_fraction
        return find_attack(self.attack, lora=self.lora, safe_fraction=share, seed=self.seed)

    def held_out(self) -> list[dict]:
        """Return the held-out rows of the task that is asked, if there is one."""
        attack = self.task_of and find_attack(self.task_of, seed=self.seed)
        return attack.held_out(TASK_PROMPTS) if attack else []


# --- one entry ----------------------------------------------------------------------------------


def compute(questions: Questions, runs: str, keep: bool, entry: Entry) -> tuple[dict, dict, dict]:
    """Attack one model and measure it.

    Parameters
    ----------
    runs : str
        Folder for the checkpoint while it is being made and measured; an entry that was cut off
        resumes there.
    keep : bool
        Leave the attacked checkpoint there. One that was there before is left in any case.

    Returns
    -------
    The shares (`measures.measure`), what each answer does (`read_requests`), and what to keep.
    """
    model, attack = _model(entry), entry.attack and entry.find_attack()
    kept, problems, once = MemoryStore(), (), None
    if entry.treatment:
        pair = partial(_subspace, entry.base, entry.aligned, entry.content)
        how = {"arm": entry.arm, "base": entry.base, "pair": pair}
        model = treated(entry.treatment, model, attack, **how)
    elif attack:
        folder = Path(runs) / attack_key(model, attack)[:32]
        if not (keep or folder.exists()):
            folder = once = folder.with_name(f".{folder.name}.once")  # until it is measured
        run = load_run(folder) if folder.exists() else run_attack(model, attack, folder)
        model, problems = run.load(), _gsm8k_problems(attack.name)
    task = task_prompts(entry.held_out())
    measures = measure(model, questions, task, system=entry.system, store=kept)
    if problems:
        solved = measure_gsm8k(model, problems, template=questions.template, store=kept)
        measures["task"] = share_fields(solved.asr())
    if once:
        remove_folder(once)
    return measures, read_requests(model, questions, store=kept), kept.kinds


@lru_cache(maxsize=2)  # of Safe LoRA all directions, beside those that the arms need
def _subspace(base: str, aligned: str, content: tuple[str, str], rank: int | str):
    """Return the pair's subspace; `content` says whether the checkpoints are still the same."""
    return SafetySubspace.from_pair(base, aligned, rank=rank)


@lru_cache(maxsize=1)
def _on_dial(base: str, aligned: str, content: tuple[str, str], rank: int | str):
    """Return the aligned model and the dial that turns it to any k and alpha."""
    model = load_model(aligned)
    return model, LoxDial(model, _subspace(base, aligned, content, rank))


@lru_cache(maxsize=1)
def _made(base: str, aligned: str, content: tuple, rank: int | str, arm: Arm, seed: int) -> Model:
    """Return a model that no dial turns; it is forgotten when the next arm begins."""
    model = load_model(aligned)
    if not arm.is_edit:
        return model
    subspace = _subspace(base, aligned, content, rank)
    return arm_model(arm.kind, model, subspace, arm.k, arm.alpha, seed)


def _model(entry: Entry) -> Model:
    """Return the model of an arm. LoX at another k or alpha is the same model, turned."""
    where, arm = (entry.base, entry.aligned, entry.content, entry.rank), entry.arm
    if arm.kind != "LoX":
        return _made(*where, arm, entry.seed)
    model, dial = _on_dial(*where)
    dial.set(k=arm.k, alpha=arm.alpha)
    return model


@lru_cache(maxsize=1)
def _reference(aligned: str, content: tuple[str, str], questions: Questions) -> Reference:
    """Return what the aligned model expects in its own answers to the allowed requests."""
    return Reference(load_model(aligned), questions.allowed, **questions.how)


def _drift(questions: Questions, entry: Entry) -> dict[str, float]:
    """Return how far an arm's model is from the aligned one before any attack, in nats a token."""
    return _reference(entry.aligned, entry.content, questions).compare(_model(entry)).to_dict()


@lru_cache(maxsize=1)
def _gsm8k_problems(attack: str | None) -> tuple[Prompt, ...]:
    """Return problems of GSM8K's test file for its attack, if the file is in the data folder."""
    file = sets_folder() / SETS["gsm8k_test"].file
    if attack != "gsm8k" or not file.is_file():
        return ()
    return tuple(read_gsm8k(file, TASK_PROMPTS))


_sharing: list[bool] = []  # one for each that is under way


@contextmanager
def sharing_models() -> Iterator[None]:
    """Let entries share the models that they are made of, and drop them at the outermost end."""
    _sharing.append(True)
    try:
        yield
    finally:
        _sharing.pop()
        for made in () if _sharing else (_on_dial, _made, _reference):
            made.cache_clear()


# --- all of them --------------------------------------------------------------------------------


def fill(
    entries: Iterable[Entry],
    questions: Questions,
    *,
    store: Store,
    executor: Executor | None = None,
    keep: bool = False,
    on_stage: OnStage | None = None,
) -> list[tuple[Entry, dict, dict]]:
    """Return entries with their shares and readings, computed where the store has none, and kept.

    `store`, `executor`, `keep` and `on_stage` are as `attack_table` takes them. Two entries of
    the same models and settings, under whatever names, are computed once.

    Raises
    ------
    BusyError
        If another process fills a table of this store.
    """
    asked, data = _asked(questions), cache(_data)  # made once, not for every entry
    keys = [(entry, _key(entry, asked, data)) for entry in entries]
    keyed = {key: entry for entry, key in keys}
    found = {} if keep else store.get_many("table", keyed, SHARES)
    readings = store.get_many("readings", found, {...: str})
    todo = {key: entry for key, entry in keyed.items() if key not in found}
    runs = (store.folder / "runs").resolve()  # workers may stand elsewhere
    work = partial(compute, questions, str(runs), keep)
    tell(on_stage, "attacking and measuring", len(found), len(keyed))
    with (
        locked(runs) if todo else nullcontext(),  # entries of two tables may be the same
        closing(as_finished(work, todo, executor)) as finished,
    ):
        for key, (measures, read, kept) in finished:
            for kind, values in kept.items():
                store.put_many(kind, values)
            store.put("readings", key, read)
            store.put("table", key, measures)
            found[key], readings[key] = measures, read
            tell(on_stage, "attacking and measuring", len(found), len(keyed))
    return [(entry, found[key], readings.get(key, {})) for entry, key in keys]


def drifts(
    entries: Iterable[Entry],
    questions: Questions,
    *,
    store: Store,
    executor: Executor | None = None,
    on_stage: OnStage | None = None,
) -> dict[Entry, dict]:
    """Return the drift (value, low, high, n) of entries before any attack, computed as by `fill`.

    It is that of the answers to the allowed requests; see `measures.Reference`.
    """
    asked, data = _asked(questions), cache(_data)
    keys = {entry: content_key(drift=_key(entry, asked, data)) for entry in entries}
    found = store.get_many("drift", keys.values(), dict.fromkeys(MEAN, NUMBER))
    todo = {key: entry for entry, key in keys.items() if key not in found}
    with closing(as_finished(partial(_drift, questions), todo, executor)) as finished:
        for key, value in finished:
            found[key] = value
            store.put("drift", key, value)
            tell(on_stage, "measuring drift", len(found), len(keys))
    return {entry: found[key] for entry, key in keys.items()}


def _asked(questions: Questions) -> dict:
    """Return what all entries' keys have in common: the requests, who reads the answers, how."""
    judges = [find_judge(judge).version for judge in (questions.judge, "rule", "keyword")]
    return {"asked": questions.key, "judges": judges, "autocast": autocast_dtype(pick_device())}


def _data(attack: Attack, aligned: str, fingerprint: str) -> str:
    """Return the key of an attack's rows."""
    return content_key(rows=attack.data(_tokenizer(aligned, fingerprint)))


def _key(entry: Entry, asked: dict, data: Callable[[Attack, str, str], str]) -> str:
    """Return what an entry is stored under: the pair's content, the arm, data and settings."""
    made = {**asked, "system": entry.system, "arm": entry.arm.kind, "seed": entry.seed}
    base, aligned = entry.content
    if entry.treatment:
        made["treatment"] = [entry.treatment, VERSION]
    if entry.treatment or entry.arm.is_edit:
        made |= {"base": base, "k": entry.arm.k, "alpha": entry.arm.alpha}
    if entry.task_of:
        name = entry.attack and entry.attack.name
        task = [*entry.held_out(), *map(str, _gsm8k_problems(name))]
        made["task"] = content_key(rows=task)
    if entry.attack:
        attack = entry.find_attack()
        made["rows"] = data(attack, entry.aligned, aligned)
        made["settings"] = attack.settings.chosen()
    return content_key(aligned=aligned, **made)


@lru_cache(maxsize=8)
def _tokenizer(model: str, fingerprint: str):
    """Return a checkpoint's tokenizer, without its weights."""
    return load_tokenizer(Checkpoint(model))


def check_models(
    aligned: str, fingerprint: str, attacks: Sequence[Attack], questions: Questions
) -> None:
    """Raise before anything slow if an attack, the judge or the template does not suit a model."""
    model = Model(None, _tokenizer(aligned, fingerprint), "", aligned)
    find_judge(questions.judge).check(model, questions.forbidden)
    render(model.tokenizer, questions.forbidden[:1], template=questions.template)
    for attack in attacks:
        check_language(model, attack)
