"""LoX's setting for a stated loss of help: how sure the choice is, and how it does elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np

from lox_kit.attacks import Attack
from lox_kit.measures import Questions, share_fields, world_questions
from lox_kit.store import Store

from .arms import Arm
from .results import AttackTable
from .sweeping import setting
from .table import attack_table

PAPER = (6, 1.25)  # k and alpha of Perin et al. 2025, tuned for Llama-2-7B
NONE = "none of them"


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The settings of a sweep with what they cost and hold, and the one that is chosen."""

    points: tuple[dict, ...]  # aligned first; name, k, alpha, help, attack and worst (shares)
    chosen: str | None  # None: every setting loses more help than was allowed
    loss: float  # of help before the attacks, against the aligned model, in [0, 1]
    front: tuple[str, ...]  # no other point has both a lower worst ASR and more help
    often: dict[str, float]  # share of resamples of the requests in which each is chosen
    source: dict[str, object]  # the sweep's

    def point(self, name: str) -> dict:
        """Return one point by its name."""
        return next(point for point in self.points if point["name"] == name)

    @property
    def equal_help(self) -> str | None:
        """The setting along all directions whose help is nearest to that of the chosen one.

        Of several the one with the lowest worst ASR, then the smallest alpha; None without any.
        """
        if self.chosen is None:
            return None
        wanted = self.point(self.chosen)["help"]["count"]
        order = (
            (abs(p["help"]["count"] - wanted), p["worst"]["count"], p["alpha"], p["name"])
            for p in self.points
            if p["k"] is None
        )
        *_, name = min(order, default=[None])
        return name

    def to_dict(self) -> dict:
        """Return it as plain data, for the figure."""
        return dataclasses.asdict(self)


def choose(table: AttackTable, loss: float = 0.02, *, draws: int = 2000, seed: int = 0) -> Choice:
    """Choose the setting of a sweep with the lowest worst ASR after its attacks, at enough help.

    Help is that before the attacks; it may be lower than the aligned model's by `loss`. Counts are
    of all seeds together. Of equal counts the smaller alpha is taken, then the smaller k; a
    difference of one request is no tie, however uncertain: `often` says how uncertain it is.

    Parameters
    ----------
    table : AttackTable
        From `sweep`.
    loss : float
        In [0, 1].
    draws : int
        Resamples of the requests (bootstrap), the same requests for all settings, attacks and
        seeds. So it is no uncertainty over attacks or seeds.

    Raises
    ------
    ValueError
        If the table is no sweep, or `loss` is out of range.
    """
    if "sweep" not in table.source:
        raise ValueError("this table is no sweep: make one with `lox sweep`.")
    if not 0 <= loss <= 1:
        raise ValueError(f"loss={loss}: a share of help, so use 0 to 1, such as 0.02.")
    arms = {"aligned": {"k": 0, "alpha": 0.0}, **table.source["arms"]}
    points = [_point(table, name, arm) for name, arm in arms.items()]
    points.sort(key=lambda point: (point["alpha"], point["k"] is None, point["k"] or 0))
    worst, helped = (np.array([p[of]["count"] for p in points]) for of in ("worst", "help"))
    (best,) = _picked(worst[None], helped[None], loss * points[0]["help"]["n"])
    front = [
        p["name"]
        for p, w, h in zip(points, worst, helped, strict=True)
        if not ((worst <= w) & (helped >= h) & ((worst < w) | (helped > h))).any()
    ]
    names = [p["name"] for p in points[1:]]
    often = _often(table, names, loss, draws, seed)
    name = names[best] if best >= 0 else None
    return Choice(tuple(points), name, loss, tuple(front), often, table.source)


def _point(table: AttackTable, name: str, arm: dict) -> dict:
    """Return what one setting costs and holds."""
    attack, worst = table.worst(name)
    shares = {"help": table.pooled("helpfulness", None, name), "worst": worst}
    fields = {of: share_fields(share) for of, share in shares.items()}
    return {"name": name, "k": arm["k"], "alpha": arm["alpha"], "attack": attack, **fields}


def _picked(worst: np.ndarray, helped: np.ndarray, loss: float | np.ndarray) -> np.ndarray:
    """Return which setting is chosen in each row of counts, -1 for none; aligned is column 0."""
    enough = helped[:, 1:] >= helped[:, :1] - loss - 1e-9
    found = np.where(enough, worst[:, 1:], np.inf).argmin(axis=1)  # the first of equal ones
    return np.where(enough.any(axis=1), found, -1)


def _often(
    table: AttackTable, names: list[str], loss: float, draws: int, seed: int
) -> dict[str, float]:
    """Return how often each setting is chosen when requests are drawn anew; {} without readings."""
    if not all({"asr", "helpfulness"} <= row["readings"].keys() for row in table.rows):
        return {}
    arms, attacks = ["aligned", *names], table.attacks
    rng, seeds = np.random.default_rng(seed), len(table.seeds)

    def counts(kind: str, cells: list[tuple[str | None, str]]) -> np.ndarray:
        """Return counts in each draw, shape (draws, cells)."""
        said = np.array([[x == "y" for x in table.letters(kind, *cell)] for cell in cells])
        each = said.reshape(len(cells), seeds, -1).sum(axis=1)  # (cells, requests)
        n = each.shape[1]
        return rng.multinomial(n, np.full(n, 1 / n), size=draws) @ each.T

    after = counts("asr", [(attack, arm) for arm in arms for attack in attacks])
    worst = after.reshape(draws, len(arms), len(attacks)).max(axis=2)
    helped = counts("helpfulness", [(None, arm) for arm in arms])
    allowed = loss * len(table.letters("helpfulness", None, "aligned"))
    found = _picked(worst, helped, allowed)
    each = {name: float((found == i).mean()) for i, name in enumerate(names)}
    each[NONE] = float((found < 0).mean())
    return {name: share for name, share in each.items() if share}


def report_choice(
    choice: Choice,
    attack: str | Attack,
    seeds: tuple[int, ...] = (0,),
    *,
    questions: Questions | None = None,
    store: Store,
    **options,
) -> AttackTable:
    """Measure the chosen setting beside others, on an attack and requests that did not choose it.

    The others are the aligned model, the paper's k=6, alpha=1.25, and all directions at equal help
    (`Choice.equal_help`); the last two if they are not what is chosen.

    Parameters
    ----------
    questions : Questions, optional
        Default the world's test requests; a pair of your own needs others than its sweep's.
    options
        As `attack_table` takes them: executor, on_stage.

    Raises
    ------
    ValueError
        If no setting was chosen, or the attack or the requests are the sweep's.
    """
    about = choice.source["sweep"]
    if choice.chosen is None:
        raise ValueError(f"no setting loses at most {choice.loss:g} of help: allow a larger loss.")
    name = attack if isinstance(attack, str) else attack.name
    if name in about["attacks"]:
        raise ValueError(f"{name}: the setting was chosen on this attack; report another.")
    if questions is None and about["world"] is None:
        raise ValueError("a pair of your own needs questions=: others than the sweep's.")
    asked = (questions or world_questions(about["world"])).with_help()
    if asked.key == choice.source["questions"]:
        raise ValueError("the setting was chosen on these requests; report on others.")
    arms = {"chosen": Arm(**choice.source["arms"][choice.chosen])}
    if choice.chosen != setting(*PAPER).name:
        arms["the paper's"] = setting(*PAPER)
    if choice.equal_help not in (None, choice.chosen):
        arms["all directions"] = Arm(**choice.source["arms"][choice.equal_help])
    named = [dataclasses.replace(arm, name=f"{title} ({arm.name})") for title, arm in arms.items()]
    where = {"pair": about["pair"], "world": about["world"] or "sandbox"}
    options |= {**where, "questions": asked, "store": store}
    return attack_table(["aligned", *named], [attack], seeds, lora=(), **options)
