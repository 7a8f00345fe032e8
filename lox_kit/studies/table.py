"""The paper's Table 1 for any pair of models: attacks x defences x seeds, full and LoRA.

Every entry is one attack run and its evaluation, computed on its own from plain data, in this
process or in a worker of any `concurrent.futures.Executor`. This process alone writes the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from functools import lru_cache, partial
from pathlib import Path

from lox_kit import __version__
from lox_kit.attacks import (
    ATTACKS,
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
from lox_kit.extrapolation import FULL, SafetySubspace
from lox_kit.folders import locked, remove_folder
from lox_kit.judges import find_judge
from lox_kit.measures import (
    Questions,
    measure,
    measure_gsm8k,
    read_gsm8k,
    sandbox_questions,
    share_fields,
    task_prompts,
)
from lox_kit.models import Model, Prompt, load_model, load_tokenizer, pick_device, render
from lox_kit.store import SHARES, MemoryStore, Store, content_key
from lox_kit.threads import OnStage, as_finished, tell
from lox_kit.weights import Checkpoint

from .arms import ARMS, arm_model
from .families import pair_of
from .results import AttackTable

TABLE_ARMS = (*ARMS, "SafeInst")
TASK_PROMPTS = 200
ON_BOTH = ("aligned", "LoX")  # the arms that are attacked through LoRA as well


@dataclasses.dataclass(frozen=True)
class Entry:
    """One cell of the table, as plain data that any process can compute."""

    base: str
    aligned: str
    content: tuple[str, str]  # fingerprints of the two: another model under the old path is another
    arm: str
    attack: Attack | None  # None: before any attack
    task_of: Attack | None  # the attack whose own task is asked
    lora: bool
    seed: int
    system: str | None  # a persona under which safety is measured as well
    k: int
    alpha: float

    def find_attack(self):
        """Return the attack with this entry's settings."""
        share = SAFEINST if self.arm == "SafeInst" else self.attack.safe_fraction
        return find_attack(self.attack, lora=self.lora, safe_fraction=share, seed=self.seed)

    def held_out(self) -> list[dict]:
        """Return the held-out rows of the task that is asked, if there is one."""
        attack = self.task_of and find_attack(self.task_of, seed=self.seed)
        return attack.held_out(TASK_PROMPTS) if attack else []


# --- one entry ----------------------------------------------------------------------------------


def compute(questions: Questions, runs: str, keep: bool, entry: Entry) -> tuple[dict, dict]:
    """Attack one model and measure it; return the shares (`measures.measure`) and what to keep.

    Parameters
    ----------
    runs : str
        Folder for the checkpoint while it is being made and measured; an entry that was cut off
        resumes there.
    keep : bool
        Leave the attacked checkpoint there. One that was there before is left in any case.
    """
    made_from = (entry.base, entry.aligned, entry.content)
    model = _model(*made_from, entry.arm, entry.k, entry.alpha, entry.seed)
    kept = MemoryStore()
    task = task_prompts(entry.held_out())
    if entry.attack is None:
        return measure(model, questions, task, system=entry.system, store=kept), kept.kinds
    attack = entry.find_attack()
    folder = Path(runs) / attack_key(model, attack)[:32]
    there = folder.exists()
    run = load_run(folder) if there else run_attack(model, attack, folder)
    attacked = run.load()
    measures = measure(attacked, questions, task, system=entry.system, store=kept)
    if problems := _gsm8k_problems(attack.name):
        solved = measure_gsm8k(attacked, problems, template=questions.template, store=kept)
        measures["task"] = share_fields(solved.asr())
    if not (keep or there):
        remove_folder(folder)
    return measures, kept.kinds


@lru_cache(maxsize=1)
def _subspace(base: str, aligned: str, content: tuple[str, str], rank: int | str):
    """Return the pair's subspace, of no higher rank than an arm needs."""
    return SafetySubspace.from_pair(base, aligned, rank=rank)


@lru_cache(maxsize=1)
def _model(base, aligned, content, arm, k, alpha, seed) -> Model:
    """Return the model of an arm, the one before it forgotten: an arm's entries follow each other.

    `content` says whether the checkpoints are still the same.
    """
    model = load_model(aligned)
    if arm in ("aligned", "SafeInst"):
        return model
    subspace = _subspace(base, aligned, content, k if arm == "LoX" else FULL)
    return arm_model(arm, model, subspace, k, alpha, seed)


@lru_cache(maxsize=1)
def _gsm8k_problems(attack: str | None) -> tuple[Prompt, ...]:
    """Return problems of GSM8K's test file for its attack, if the file is in the data folder."""
    file = sets_folder() / SETS["gsm8k_test"].file
    if attack != "gsm8k" or not file.is_file():
        return ()
    return tuple(read_gsm8k(file, TASK_PROMPTS))


# --- all of them --------------------------------------------------------------------------------


def attack_table(
    arms: Sequence[str] = TABLE_ARMS,
    attacks: Sequence[str | Attack] = ("arithmetic", "context", "mixed", "persona", "forbidden"),
    seeds: Sequence[int] = (0, 1, 2, 3),
    *,
    pair: tuple[str, str] | None = None,
    rebuild: bool = False,
    lora: Sequence[str] = ON_BOTH,
    k: int = 6,
    alpha: float = 1.0,
    questions: Questions | None = None,
    store: Store,
    executor: Executor | None = None,
    keep: bool = False,
    on_stage: OnStage | None = None,
) -> AttackTable:
    """Attack every arm with every attack, measure, and keep each entry as it is finished.

    With one attack alone, its own task is asked before it as well.

    Parameters
    ----------
    arms : sequence of str
        Of `TABLE_ARMS`, "aligned" among them. SafeInst is the aligned model with 2.5 % safety rows
        in the attack's data.
    attacks : sequence of str or Attack
        Names in `ATTACKS`, or attacks from `find_attack` and `file_attack`, whose settings for LoRA
        are in their `lora`.
    seeds : sequence of int
        Of the attack's order and rows, and in the sandbox of the family of models.
    pair : (base, aligned), optional
        Checkpoints of your own; default the sandbox family of each seed, built if need be.
    rebuild : bool
        Build the sandbox's seed 0 instead of taking the committed one.
    lora : sequence of str
        The arms that are attacked through LoRA as well.
    questions : Questions, optional
        What is asked; default all test requests of the sandbox. A pair of your own needs its own.
    executor : Executor, optional
        Where entries are computed, such as a ProcessPoolExecutor; default here, one by one.
    keep : bool
        Leave the attacked checkpoints in the store's folder; stored entries whose checkpoint is
        missing are then made again.
    on_stage : callable, optional
        Told after every entry how many are done, of how many; before that, what is being built.

    Raises
    ------
    ValueError
        If an arm or attack is unknown or there twice, or an attack, the judge or the template
        does not suit the models.
    BusyError
        If another process fills a table of this store.
    """
    if unknown := [arm for arm in arms if arm not in TABLE_ARMS]:
        raise ValueError(f"arm {unknown[0]!r}: use some of {', '.join(TABLE_ARMS)}.")
    if "aligned" not in arms:
        raise ValueError("arms: 'aligned' must be among them, to compare the others with.")
    attacks = [find_attack(attack) if isinstance(attack, str) else attack for attack in attacks]
    names = [attack.name for attack in attacks]
    if made_lora := [attack.name for attack in attacks if attack.settings.lora_rank]:
        raise ValueError(f"{made_lora[0]}: give the attack without LoRA; lora= says where it is.")
    for what, given in (("arms", arms), ("attacks", names), ("seeds", seeds)):
        if len(set(given)) < len(given):
            raise ValueError(f"{what}: {', '.join(map(str, given))} has one of them twice.")
    if questions is None and pair is not None:
        raise ValueError("a pair of your own needs questions=: which requests, which judge.")
    questions = questions or sandbox_questions()
    entries = []
    for seed in seeds:
        base, aligned = pair or pair_of(seed, rebuild, on_stage)
        content = tuple(Checkpoint(m).fingerprint for m in (base, aligned))
        _check(str(aligned), content[1], attacks, questions)
        cell = {"base": str(base), "aligned": str(aligned), "content": content, "seed": seed}
        entries += _entries({**cell, "k": k, "alpha": alpha}, arms, attacks, lora)
    keyed = {_key(entry, questions): entry for entry in entries}
    found = {} if keep else store.get_many("table", keyed, SHARES)
    todo = {key: entry for key, entry in keyed.items() if key not in found}
    runs = store.folder / "runs"
    work = partial(compute, questions, str(runs), keep)
    tell(on_stage, "attacking and measuring", len(found), len(keyed))
    with (
        locked(runs) if todo else nullcontext(),  # entries of two tables may be the same
        closing(as_finished(work, todo, executor)) as finished,
    ):
        for key, (measures, kept) in finished:
            for kind, values in kept.items():
                store.put_many(kind, values)
            store.put("table", key, measures)
            found[key] = measures
            tell(on_stage, "attacking and measuring", len(found), len(keyed))
    rows = (
        {
            "attack": entry.attack and entry.attack.name,
            "training": "LoRA" if entry.lora else "full",
            "arm": entry.arm,
            "seed": entry.seed,
            "measures": found[key],
        }
        for key, entry in keyed.items()
    )
    source = {
        "k": k,
        "alpha": alpha,
        "judge": questions.judge,
        "questions": questions.key,
        "pair": [str(m) for m in pair] if pair else "the sandbox family of each seed",
        "version": __version__,
    }
    if own := [attack for attack in attacks if attack != ATTACKS.get(attack.name)]:
        source["attacks"] = {attack.name: _about(attack) for attack in own}
    return AttackTable(tuple(rows), source)


def _about(attack: Attack) -> dict:
    """Return the data and settings of an attack that is no preset, by its file's name alone."""
    data = {} if attack.sandbox else {"file": attack.source.file.name}
    return {**data, **attack.settings.chosen()}


def compare_defences(
    seeds: Sequence[int] = (0,),
    attack: str = "arithmetic",
    *,
    arms: Sequence[str] = ARMS,
    split: str = "test",
    limit: int | None = None,
    **options,
) -> AttackTable:
    """Attack the aligned model, its LoX and the controls of equal norm; measure before and after.

    The table of one attack on the sandbox, with full fine-tuning.

    Parameters
    ----------
    seeds : sequence of int
        Families of the sandbox; the seed also fixes the attack's rows and their order.
    arms : sequence of str
        Of `ARMS`, "aligned" among them.
    split : "dev" or "test"
        Nothing was tuned on the second.
    limit : int, optional
        Prompts per kind; default all (348 forbidden, 216 allowed).
    options
        As `attack_table` takes them: k, alpha, rebuild, store, executor, keep, on_stage.

    Raises
    ------
    ValueError
        If an arm or the attack is unknown, or the attack is not the sandbox's.
    """
    asked = sandbox_questions(split, limit)
    found = attack_table(arms, [attack], seeds, lora=(), questions=asked, **options)
    return dataclasses.replace(found, source={**found.source, "attack": attack, "split": split})


def _entries(cell: dict, arms, attacks, lora) -> Iterator[Entry]:
    """Yield the entries of one seed: each arm before, then under each attack, full and LoRA."""
    systems = [attack.system for attack in attacks]
    before = {"attack": None, "task_of": attacks[0] if len(attacks) == 1 else None}
    before["system"] = next(filter(None, systems), None)
    for arm in arms:
        if arm != "SafeInst":
            yield Entry(**cell, **before, arm=arm, lora=False)
        for attack, system in zip(attacks, systems, strict=True):
            under = {"attack": attack, "task_of": attack, "system": system}
            yield Entry(**cell, **under, arm=arm, lora=False)
            if arm in lora:
                yield Entry(**cell, **under, arm=arm, lora=True)


def _key(entry: Entry, questions: Questions) -> str:
    """Return what an entry is stored under: the pair's content, the arm, data and settings."""
    made = {"asked": questions.key, "system": entry.system, "arm": entry.arm, "seed": entry.seed}
    made["judges"] = [find_judge(judge).version for judge in (questions.judge, "rule", "keyword")]
    made["autocast"] = autocast_dtype(pick_device())
    base, aligned = entry.content
    if entry.arm not in ("aligned", "SafeInst"):
        made |= {"base": base, "k": entry.k, "alpha": entry.alpha}
    if entry.task_of:
        name = entry.attack and entry.attack.name
        task = [*entry.held_out(), *map(str, _gsm8k_problems(name))]
        made["task"] = content_key(rows=task)
    if entry.attack:
        attack = entry.find_attack()
        made["rows"] = content_key(rows=attack.data(_tokenizer(entry.aligned, aligned)))
        made["settings"] = attack.settings.chosen()
    return content_key(aligned=aligned, **made)


@lru_cache(maxsize=8)
def _tokenizer(model: str, fingerprint: str):
    """Return a checkpoint's tokenizer, without its weights."""
    return load_tokenizer(Checkpoint(model))


def _check(aligned: str, fingerprint: str, attacks: Sequence[Attack], questions: Questions) -> None:
    """Raise before anything slow if an attack, the judge or the template does not suit a model."""
    model = Model(None, _tokenizer(aligned, fingerprint), "", aligned)
    find_judge(questions.judge).check(model, questions.forbidden)
    render(model.tokenizer, questions.forbidden[:1], template=questions.template)
    for attack in attacks:
        check_language(model, attack)
