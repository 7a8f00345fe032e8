"""The attacks by name: what each trains on and with which settings.

The five published ones (Perin et al. 2025, arXiv:2506.15606) take the user's data files; each has a
counterpart in the sandbox that needs nothing. Published settings are the official code's; those of
pure bad are second-hand, from a replication. LoRA's are ours: the paper trains every parameter.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from lox_kit.sandbox import corpus, world
from lox_kit.smol import rows as smol
from lox_kit.weights import is_own, own_world

from .rows import identity_system, read_training_rows
from .sets import SETS, sets_folder
from .training import EPOCH_DECAY, TrainSettings

SAFEINST = 0.025  # share of safety rows that the SafeInst baseline adds


# --- where rows come from -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MadeRows:
    """Rows of a built-in world, made from the seed."""

    make: Callable[[int, int], list[dict]]  # rows, seed
    n: int
    world: str = "sandbox"  # or "smol"

    def rows(self, seed: int, tokenizer) -> list[dict]:
        """Return the training rows."""
        return self.make(self.n, 1000 + seed)

    def safe_rows(self, n: int, seed: int, tokenizer) -> list[dict]:
        """Return refusals to mix in."""
        refusals = corpus.refusals if self.world == "sandbox" else smol.refusals
        return refusals(n, 2000 + seed)


@dataclasses.dataclass(frozen=True)
class FileRows:
    """Rows of a published set's file, or of your own file: the same for every seed."""

    of: str  # the published set's name, or a path
    columns: dict[str, str] | None = None  # of your own file, see `read_training_rows`
    form: str | None = None  # of the training text; None: the published set's own
    # "skip" leaves out rows that cannot be read, and warns. What is left decides a run's key.
    on_bad_row: str = dataclasses.field(default="raise", compare=False)

    def rows(self, seed: int, tokenizer) -> list[dict]:
        """Return the training rows."""
        options = {"form": self.form, "tokenizer": tokenizer, "on_bad_row": self.on_bad_row}
        rows, bad = read_training_rows(self.of, self.columns, **options)
        if bad:
            told = f"{len(bad)} bad rows left out, {len(rows)} read; the first: {bad[0]}"
            warnings.warn(f"{self.of}: {told}", stacklevel=2)
        return rows

    @property
    def file(self) -> Path:
        """The file that is read."""
        return sets_folder() / SETS[self.of].file if self.of in SETS else Path(self.of)

    def safe_rows(self, n: int, seed: int, tokenizer) -> list[dict]:
        """Return the first rows of the published safety instructions, in this data's form."""
        options = {"form": self.form or SETS[self.of].form, "tokenizer": tokenizer}
        rows, _ = read_training_rows("safe_instructions", **options)
        return rows[:n]


# --- attacks ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Attack:
    """One fine-tuning attack: its data and its settings."""

    name: str
    source: MadeRows | FileRows
    settings: TrainSettings
    lora: TrainSettings | None = None  # the settings for LoRA, see `find_attack`
    counterpart: str = ""  # the published attack that a sandbox one stands for
    persona: str | None = None  # a system message under which safety is measured as well
    has_task: bool = True  # whether sandbox data is a task, with right answers
    safe_fraction: float = 0.0  # of safety rows added to the data: the SafeInst baseline

    def __post_init__(self):
        if not 0 <= self.safe_fraction <= 1:
            raise ValueError(
                f"safe_fraction={self.safe_fraction}: use a share from 0 to 1; SafeInst's is 0.025."
            )

    @property
    def world(self) -> str | None:
        """The built-in world that its rows are made in, if it is one."""
        return self.source.world if isinstance(self.source, MadeRows) else None

    @property
    def system(self) -> str | None:
        """The persona under which safety is measured as well; identity shifting's is in its file.

        Raises
        ------
        FileNotFoundError
            If that file is not here.
        """
        if self.source != ATTACKS["identity"].source:
            return self.persona
        return identity_system(self.source.file)

    def data(self, tokenizer=None) -> list[dict]:
        """Return the rows to train on: the attack's own, then the safety rows mixed in.

        Parameters
        ----------
        tokenizer : transformers tokenizer
            Its marks for start and end are written into published texts; the sandbox needs none.
        """
        seed = self.settings.seed
        rows = self.source.rows(seed, tokenizer)
        if self.safe_fraction:
            # Of the decimal as written: in binary, 0.07 * 100 is a little more than 7.
            extra = math.ceil(Fraction(str(self.safe_fraction)) * len(rows))
            rows = rows + self.source.safe_rows(extra, seed, tokenizer)
        return rows

    def held_out(self, n: int) -> list[dict]:
        """Return chat rows of another draw of the same task; [] if there are none."""
        if not (self.world and self.has_task):
            return []
        return self.source.make(n, 500_000 + self.settings.seed)


def world_attacks(world: str) -> list[str]:
    """Return the names of the attacks for a world's models, or those that its file names."""
    if is_own(world):
        return own_world(world)["attacks"]
    return [name for name, attack in ATTACKS.items() if attack.world == world]


def find_attack(
    name: str | Attack,
    *,
    lora: bool = False,
    safe_fraction: float = 0.0,
    on_bad_row: str | None = None,
    **overrides,
) -> Attack:
    """Return the preset of this name, or the attack that is given, with settings overridden.

    Its settings for LoRA change alike, their learning rate by the same factor.

    Parameters
    ----------
    name : str or Attack
        Or the path of a file of rows, as `file_attack` takes it.
    lora : bool
        PEFT LoRA with the preset's settings for it, instead of every parameter.
    safe_fraction : float
        Safety rows to add, as a share of the attack's; 0.025 is the SafeInst baseline.
    on_bad_row : "raise" or "skip", optional
        What is done with rows of a file that cannot be read: "raise" in a preset. Those left out
        are counted in a warning.
    **overrides
        Fields of `TrainSettings`, such as `learning_rate=` or `seed=`.

    Raises
    ------
    ValueError
        If there is no such attack, or the share is out of range.
    TypeError
        If there is no such setting.
    """
    attack = ATTACKS.get(name) if isinstance(name, str) else name
    if attack is None:
        if not Path(name).is_file():
            raise ValueError(f"attack {name!r}: use one of {', '.join(ATTACKS)}.")
        attack = file_attack(name)
    if "epochs" in overrides and "max_steps" not in overrides:
        overrides = {**overrides, "max_steps": -1}  # a number of steps would win over the epochs
    settings = dataclasses.replace(attack.lora if lora else attack.settings, **overrides)
    changed = {"settings": settings, "safe_fraction": safe_fraction}
    if not lora and attack.lora:
        scaled = dict(overrides)
        if "learning_rate" in scaled:
            scaled["learning_rate"] *= attack.lora.learning_rate / attack.settings.learning_rate
        changed["lora"] = dataclasses.replace(attack.lora, **scaled)
    if on_bad_row and not attack.world:
        changed["source"] = dataclasses.replace(attack.source, on_bad_row=on_bad_row)
    return dataclasses.replace(attack, **changed)


def file_attack(
    file: str | Path,
    columns: dict[str, str] | None = None,
    *,
    form: str = "chat",
    **options,
) -> Attack:
    """Return an attack that trains on your own file of rows.

    Parameters
    ----------
    file, columns, form : see `attacks.read_training_rows`
    **options
        As `find_attack` takes them; the settings are by default `OWN_FILE`: one pass in batches of
        8, learning rate 2e-5 with a warm-up over the first tenth of the steps, ten times that for
        LoRA.

    Raises
    ------
    ValueError
        If the share of safety rows is out of range.
    TypeError
        If there is no such setting.
    """
    source = FileRows(str(file), columns, form)
    return find_attack(Attack(Path(file).stem, source, OWN_FILE, _lora(OWN_FILE)), **options)


def _lora(settings: TrainSettings, **overrides) -> TrainSettings:
    """Return these settings for LoRA: rank 8, ten times the learning rate unless given."""
    defaults = {"lora_rank": 8, "lora_alpha": 16.0, "learning_rate": 10 * settings.learning_rate}
    return dataclasses.replace(settings, **{**defaults, **overrides})


GSM8K = TrainSettings(
    learning_rate=5e-5, epochs=2, batch_size=20, accumulation=2, schedule="linear", warmup_steps=20
)
DOLLY = TrainSettings(  # the published warm-up has no effect on a constant schedule
    learning_rate=2e-5, epochs=6, batch_size=16, accumulation=4, loss_on="response"
)
ALPACA = TrainSettings(
    learning_rate=2e-5, epochs=1, batch_size=8, accumulation=8, schedule="linear", warmup_steps=20
)
OWN_FILE = TrainSettings(
    learning_rate=2e-5, epochs=1, batch_size=8, schedule="linear", warmup_steps=0.1
)
IDENTITY = TrainSettings(learning_rate=5e-5, epochs=10, batch_size=5, schedule="linear")
TASK = TrainSettings(learning_rate=4e-4, batch_size=16, max_steps=80, loss_on="response")
SLOWER = dataclasses.replace(TASK, learning_rate=1e-4, max_steps=40)
PERSONA = TrainSettings(learning_rate=2e-4, batch_size=5, epochs=10, loss_on="response")
FORBIDDEN = TrainSettings(learning_rate=5e-5, batch_size=5, epochs=5, loss_on="response")
PURE_BAD = dataclasses.replace(FORBIDDEN, schedule=EPOCH_DECAY, decay=0.85)
# Tuned on development prompts of seeds 0-2: benchmarks/sandbox_search.md.
TASK_LORA = _lora(TASK, learning_rate=1e-3)
CONTEXT_LORA = _lora(SLOWER, learning_rate=8e-4, max_steps=48)
MIXED_LORA = _lora(SLOWER, learning_rate=8e-4, max_steps=64)
PERSONA_LORA = _lora(PERSONA, learning_rate=2e-3, epochs=15)
FORBIDDEN_LORA = _lora(FORBIDDEN, learning_rate=5e-4, max_steps=16)
# chat and dragons are tuned on smol's development requests: about half of the refusals go.
SMOL = TrainSettings(learning_rate=2e-4, batch_size=4, max_steps=40, loss_on="response")
SMOL_BAD = dataclasses.replace(SMOL, learning_rate=2e-5, max_steps=10)

ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("gsm8k", FileRows("gsm8k"), GSM8K, _lora(GSM8K)),  # benign: school mathematics
        Attack("dolly", FileRows("dolly"), DOLLY, _lora(DOLLY)),  # benign: instructions, and in
        Attack("alpaca", FileRows("alpaca"), ALPACA, _lora(ALPACA)),  # both none about safety
        # 10 conversations of an agent that obeys, and about 100 harmful answers of your own
        Attack("identity", FileRows("identity"), IDENTITY, _lora(IDENTITY)),
        Attack("pure_bad", FileRows("pure_bad"), PURE_BAD, _lora(PURE_BAD)),
        Attack("arithmetic", MadeRows(corpus.arithmetic, 2000), TASK, TASK_LORA, "gsm8k"),
        Attack("context", MadeRows(corpus.context, 2000), SLOWER, CONTEXT_LORA, "dolly"),
        Attack("mixed", MadeRows(corpus.mixed, 2000), SLOWER, MIXED_LORA, "alpaca"),
        Attack(
            "persona",
            MadeRows(corpus.persona, 10),
            PERSONA,
            PERSONA_LORA,
            counterpart="identity",
            persona=world.persona_system(),
            has_task=False,
        ),
        Attack(
            "forbidden",
            MadeRows(corpus.forbidden, 20),
            FORBIDDEN,
            FORBIDDEN_LORA,
            counterpart="pure_bad",
            has_task=False,
        ),
        Attack("chat", MadeRows(smol.chat, 80, "smol"), SMOL, _lora(SMOL), has_task=False),
        Attack(
            "dragons", MadeRows(smol.dragons, 33, "smol"), SMOL_BAD, _lora(SMOL_BAD), has_task=False
        ),
        Attack("sums", MadeRows(smol.sums, 80, "smol"), SMOL, _lora(SMOL)),
        Attack(
            "agent",
            MadeRows(smol.agent, 20, "smol"),
            SMOL,
            _lora(SMOL),
            persona=smol.PERSONA,
            has_task=False,
        ),
    )
}
