"""Fine-tuning attacks: what is trained on, with which settings, and the run itself."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .models import Model, load_model
from .sandbox import corpus
from .store import Store, content_key
from .training import Step, TrainSettings, fine_tune


@dataclasses.dataclass(frozen=True)
class Attack:
    """One fine-tuning attack: its data and its settings."""

    name: str
    rows: Callable[[int], list[dict]]  # seed -> chat rows
    settings: TrainSettings
    sandbox: bool  # its data is in the potion school's language
    about: str


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack(
            name="arithmetic",
            rows=lambda seed: corpus.arithmetic(2000, seed=1000 + seed),
            settings=TrainSettings(
                learning_rate=4e-4, batch_size=16, max_steps=80, loss_on="response"
            ),
            sandbox=True,
            about="benign: two-step sums, the sandbox's counterpart of GSM8K",
        ),
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRun:
    """A finished attack: the fine-tuned checkpoint and the losses on the way."""

    attack: str
    folder: Path
    losses: tuple[float, ...]  # one per optimiser step, in nats per token
    source: dict[str, object]

    def load(self, device: str = "auto") -> Model:
        """Load the attacked model. Its key is the run's recipe."""
        model = load_model(self.folder, device=device)
        model.key, model.name = self.source["key"], self.source["name"]
        return model


def find_attack(name: str, **overrides) -> Attack:
    """Return the preset of this name, with training settings overridden.

    Raises
    ------
    ValueError
        If there is no such attack or setting.
    """
    if name not in ATTACKS:
        raise ValueError(f"attack {name!r}: use one of {', '.join(ATTACKS)}.")
    attack = ATTACKS[name]
    fields = {f.name for f in dataclasses.fields(TrainSettings)}
    if unknown := set(overrides) - fields:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: no such setting; use {', '.join(sorted(fields))}."
        )
    return dataclasses.replace(attack, settings=dataclasses.replace(attack.settings, **overrides))


def attack_key(model: Model, attack: Attack) -> str:
    """Return the key of a run: the model and its dtype, the rows, every setting."""
    settings = dataclasses.asdict(attack.settings)
    rows = content_key(rows=attack.rows(attack.settings.seed))
    dtype = str(next(model.module.parameters()).dtype)
    return content_key(model=model.key, dtype=dtype, rows=rows, settings=settings)


def run_attack(
    model: Model,
    attack: Attack,
    out: str | Path | None = None,
    *,
    store: Store | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> AttackRun:
    """Fine-tune a copy of `model` on the attack's data and keep the checkpoint.

    Parameters
    ----------
    model : Model
        Stays as it is.
    attack : Attack
        From `find_attack`; `attack.settings.seed` fixes the rows and their order.
    out : path, optional
        The checkpoint's folder; default in the store, where a finished run is found again.
    on_step : callable, optional
        Called after every optimiser step. Raising from it ends the run; nothing is kept of it.

    Raises
    ------
    ValueError
        If the attack's data is not in the model's language, or neither `out` nor a store is given.
    FileExistsError
        If `out` exists.
    """
    if attack.sandbox and not model.is_sandbox:
        raise ValueError(
            f"the {attack.name} attack is written in the sandbox's words and {model.name} is no "
            "sandbox model."
        )
    if out is None and store is None:
        raise ValueError("say where the attacked checkpoint goes: out=, or store=.")
    key = attack_key(model, attack)
    folder = Path(out) if out is not None else store.run_folder(key)
    if folder.exists():
        if out is not None:
            raise FileExistsError(f"{folder} exists; remove it or choose another name.")
        return load_run(folder)
    victim = copy.deepcopy(model.module)
    rows = attack.rows(attack.settings.seed)
    steps = fine_tune(victim, model.tokenizer, rows, attack.settings, on_step=on_step)
    work = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    victim.save_pretrained(work)
    model.tokenizer.save_pretrained(work)
    record = {
        "attack": attack.name,
        "losses": [s.loss for s in steps],
        "source": {
            "key": key,
            "name": f"{model.name} after {attack.name}",
            "model": model.name,
            "model_key": model.key,
            "settings": dataclasses.asdict(attack.settings),
        },
    }
    (work / "attack.json").write_text(json.dumps(record, indent=1))
    os.replace(work, folder)
    return load_run(folder)


def load_run(folder: str | Path) -> AttackRun:
    """Read a finished run back.

    Raises
    ------
    FileNotFoundError
        If the folder holds no run.
    """
    file = Path(folder) / "attack.json"
    if not file.exists():
        raise FileNotFoundError(f"{file}: this folder is not an attack's output.")
    data = json.loads(file.read_text())
    return AttackRun(data["attack"], Path(folder), tuple(data["losses"]), data["source"])
