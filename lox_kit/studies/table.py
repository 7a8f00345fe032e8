"""The paper's Table 1 for any pair of models: attacks x defences x seeds, full and LoRA.

And two tables of built-in worlds: defences against one attack, and directions at equal cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from lox_kit import __version__
from lox_kit.attacks import ATTACKS, Attack, find_attack
from lox_kit.extrapolation import FULL, SafetySubspace
from lox_kit.measures import Questions, measure_asr, world_questions
from lox_kit.models import load_model
from lox_kit.store import Store
from lox_kit.threads import OnStage
from lox_kit.weights import Checkpoint, with_seed

from .arms import ARMS, TABLE_ARMS, Arm, arm_model
from .entries import Entry, check_models, drifts, fill, sharing_models
from .families import build_longer, pair_of
from .results import AttackTable

ON_BOTH = ("aligned", "LoX")  # the arms that are attacked through LoRA as well


@sharing_models()
def attack_table(
    arms: Sequence[str | Arm] = TABLE_ARMS,
    attacks: Sequence[str | Attack] = ("arithmetic", "context", "mixed", "persona", "forbidden"),
    seeds: Sequence[int] = (0, 1, 2, 3),
    *,
    pair: tuple[str, str] | None = None,
    world: str = "sandbox",
    rebuild: bool = False,
    lora: Sequence[str] = ON_BOTH,
    k: int = 6,
    alpha: float = 1.0,
    questions: Questions | None = None,
    store: Store,
    executor: Executor | None = None,
    keep: bool = False,
    drift: bool = False,
    on_stage: OnStage | None = None,
) -> AttackTable:
    """Attack every arm with every attack, measure, and keep each entry as it is finished.

    With one attack alone, its own task is asked before it as well.

    Parameters
    ----------
    arms : sequence of str or Arm
        "aligned" among them. Those named, of `TABLE_ARMS` or controls as `extrapolation.control_of`
        names them, step as far as `k` and `alpha` say; SafeInst is the aligned model with 2.5 %
        safety rows in the attack's data.
    attacks : sequence of str or Attack
        Names in `ATTACKS`, or attacks from `find_attack` and `file_attack`, whose settings for LoRA
        are in their `lora`.
    seeds : sequence of int
        Of the attack's order and rows, and of the world's family of models.
    pair : (base, aligned), optional
        Checkpoints of your own.
    world : "sandbox" or "smol"
        Without a pair: its family of each seed, built if need be.
    rebuild : bool
        Build the sandbox's seed 0 instead of taking the committed one.
    lora : sequence of str
        The arms that are attacked through LoRA as well.
    questions : Questions, optional
        What is asked; default all test requests of the world. A pair of your own needs its own.
    executor : Executor, optional
        Where entries are computed, such as a ProcessPoolExecutor; default here, one by one.
    keep : bool
        Leave the attacked checkpoints in the store's folder; stored entries whose checkpoint is
        missing are then made again.
    drift : bool
        Measure how far every model is from the aligned one before any attack, on the allowed
        requests: "drift" of its row, in nats a token.
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
    arms = [Arm(arm, k, alpha) if isinstance(arm, str) else arm for arm in arms]
    attacks = [find_attack(attack) if isinstance(attack, str) else attack for attack in attacks]
    names = [arm.name for arm in arms], [attack.name for attack in attacks]
    if "aligned" not in names[0]:
        raise ValueError("arms: 'aligned' must be among them, to compare the others with.")
    if made_lora := [attack.name for attack in attacks if attack.settings.lora_rank]:
        raise ValueError(f"{made_lora[0]}: give the attack without LoRA; lora= says where it is.")
    for what, given in (("arms", names[0]), ("attacks", names[1]), ("seeds", seeds)):
        if len(set(given)) < len(given):
            raise ValueError(f"{what}: {', '.join(map(str, given))} has one of them twice.")
    if questions is None and pair is not None:
        raise ValueError("a pair of your own needs questions=: which requests, which judge.")
    questions = questions or world_questions(world)
    entries, ranks = [], {arm.rank for arm in arms}
    rank = FULL if FULL in ranks else max(ranks)  # so that a pair is factored once
    for seed in seeds:
        base, aligned = pair or pair_of(seed, rebuild, world=world, on_stage=on_stage)
        for arm in arms:
            model = with_seed(arm.checkpoint, seed) if arm.checkpoint else aligned
            content = tuple(Checkpoint(m).fingerprint for m in (base, model))
            check_models(str(model), content[1], attacks, questions)
            cell = {"base": str(base), "aligned": str(model), "content": content, "seed": seed}
            entries += _entries({**cell, "arm": arm, "rank": rank}, attacks, arm.name in lora)
    shared = {"store": store, "executor": executor, "on_stage": on_stage}
    filled = fill(entries, questions, keep=keep, **shared)
    before = [entry for entry in entries if drift and not entry.attack]
    moved = drifts(before, questions, **shared)
    rows = (
        entry.row(*found) | ({"drift": moved[entry]} if entry in moved else {})
        for entry, *found in filled
    )
    source = {
        "k": k,
        "alpha": alpha,
        "judge": questions.judge,
        "questions": questions.key,
        "pair": [str(m) for m in pair] if pair else f"the {world} family of each seed",
        "version": __version__,
    }
    if edits := [arm for arm in arms if arm.name != arm.kind]:
        source["arms"] = {arm.name: dataclasses.asdict(arm) for arm in edits}
    if own := [attack for attack in attacks if attack != ATTACKS.get(attack.name)]:
        files = {a.name: {} if a.world else {"file": a.source.file.name} for a in own}  # no path
        source["attacks"] = {a.name: files[a.name] | a.settings.chosen() for a in own}
    return AttackTable(tuple(rows), source)


def compare_defences(
    seeds: Sequence[int] = (0,),
    attack: str = "arithmetic",
    *,
    world: str = "sandbox",
    arms: Sequence[str] = ARMS,
    limit: int | None = None,
    **options,
) -> AttackTable:
    """Attack the aligned model, its LoX and the controls of equal norm; measure before and after.

    The table of one attack on a built-in world, with full fine-tuning.

    Parameters
    ----------
    seeds : sequence of int
        Families of the world; the seed also fixes the attack's rows and their order.
    world : "sandbox" or "smol"
    arms : sequence of str
        Of `ARMS`, or controls; "aligned" among them.
    limit : int, optional
        Test requests of each kind, on which nothing was tuned; default all, see `world_questions`.
    options
        As `attack_table` takes them: k, alpha, rebuild, store, executor, keep, on_stage.

    Raises
    ------
    ValueError
        If an arm or the attack is unknown, or the attack is not the world's.
    """
    asked = world_questions(world, limit=limit)
    found = attack_table(arms, [attack], seeds, world=world, lora=(), questions=asked, **options)
    return dataclasses.replace(found, source={**found.source, "attack": attack, "split": "test"})


def _entries(cell: dict, attacks: Sequence[Attack], lora: bool) -> Iterator[Entry]:
    """Yield the entries of one arm and seed: before, then under each attack, full and LoRA."""
    systems = [attack.system for attack in attacks]
    before = {"attack": None, "task_of": attacks[0] if len(attacks) == 1 else None}
    before["system"] = next(filter(None, systems), None)
    if cell["arm"].kind != "SafeInst":
        yield Entry(**cell, **before, lora=False)
    for attack, system in zip(attacks, systems, strict=True):
        under = {"attack": attack, "task_of": attack, "system": system}
        for through in (False, True) if lora else (False,):
            yield Entry(**cell, **under, lora=through)


# --- directions at equal cost, on the real small model ------------------------------------------

# Kinds of step, k, and the alphas along it. A control steps as far as LoX does with its k.
DIRECTIONS = (
    ("LoX", 1, (0.5, 1.0, 2.0)),
    ("LoX", 6, (0.5, 1.0, 1.5)),
    ("LoX", 32, (0.5, 1.0, 1.5)),
    ("full delta", 6, (1.0, 2.0, 3.0)),
    ("random subspace", 6, (1.0, 3.0)),
)


def _named(kind: str, k: int, alpha: float) -> Arm:
    """Return an arm named by its kind and its step."""
    return Arm(kind, k, alpha, name=f"{kind} k={k} alpha={alpha:g}")


COST = _named("LoX", 6, 1.0)  # whose over-refusal the longer-aligned model is to reach
LONGER = Arm("aligned", name="longer aligned", checkpoint="smol/longer")


def frontier_arms() -> Iterator[Arm]:
    """Yield the aligned model, every direction at its alphas, and the longer-aligned model."""
    yield Arm("aligned")
    for kind, k, alphas in DIRECTIONS:
        for alpha in alphas:
            yield _named(kind, k, alpha)
    yield LONGER


def smol_frontier(
    seeds: Sequence[int] = (0, 1, 2),
    attacks: Sequence[str] = ("chat", "dragons"),
    *,
    limit: int | None = None,
    store: Store,
    on_stage: OnStage | None = None,
    **options,
) -> AttackTable:
    """Measure every arm of the frontier before and after every attack, on every seed.

    Is it the low rank? Two directions of equal norm need not cost the same. So each is followed
    along alpha, and what it keeps after an attack is read against what it refuses too much before
    it. A seed is one of data and order: the base is one. The test requests are asked; the
    longer-aligned models are made to cost as much as LoX on the development requests.

    Parameters
    ----------
    limit : int, optional
        Requests of each kind; default all 240.
    options
        As `attack_table` takes them: executor, keep.
    """
    shared, asked = {"store": store, "on_stage": on_stage}, world_questions("smol", "dev")
    for seed in seeds:
        pair = pair_of(seed, world="smol", on_stage=on_stage)
        subspace = SafetySubspace.from_pair(*pair, rank=COST.k, on_stage=on_stage)
        lox = arm_model(COST.kind, load_model(pair[1]), subspace, COST.k, COST.alpha)
        cost = measure_asr(lox, asked.allowed, ["keyword"], **asked.how, **shared).refusal
        build_longer(seed, cost, on_stage=on_stage)
    how = {"world": "smol", "lora": (), "questions": world_questions("smol", limit=limit)}
    return attack_table([*frontier_arms()], attacks, seeds, **how, **shared, **options)
