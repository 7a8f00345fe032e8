"""Fine-tuning attacks: a copy of a model trained on an attack's data, kept as a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from lox_kit.folders import locked, remove_folder, whole
from lox_kit.models import Model, load_model
from lox_kit.store import Store, content_key
from lox_kit.weights import Checkpoint, read_object

from .presets import ATTACKS, Attack
from .resuming import Step, kept_checkpoints, newest_whole, resume_folder, work_folder
from .training import autocast_dtype, fine_tune, save_model

RECORD = "attack.json"
PUBLISHED = {attack.counterpart: name for name, attack in ATTACKS.items() if attack.sandbox}
STOPPED = "stopped"  # in a run's work folder: the model at the step at which it was stopped


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRun:
    """An attack's fine-tuned checkpoint and the losses on the way."""

    attack: str
    folder: Path
    losses: tuple[float, ...]  # one per optimiser step, in nats per token
    source: dict[str, object]

    @property
    def finished(self) -> bool:
        """Whether the run went to its end; one that was stopped goes on by the same call."""
        return len(self.losses) == self.source["steps"]

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Folders of the checkpoints kept on the way, by optimiser step."""
        return kept_checkpoints(self.folder if self.finished else self.folder.parent)

    def load(self, device: str = "auto", *, step: int | None = None) -> Model:
        """Load the attacked model, or its kept checkpoint of a step. Its key is the recipe's.

        Raises
        ------
        ValueError
            If no checkpoint of this step was kept, or the weights were changed since.
        """
        if step is None:
            left = self.source.get("weights")  # older runs have none
            if left and Checkpoint(self.folder).weight_hashes != left:
                raise ValueError(
                    f"{self.folder}: its weights are not those that the attack left; remove the "
                    "folder, and the attack runs again."
                )
            return self._named(load_model(self.folder, device=device), len(self.losses))
        if step not in self.checkpoints:
            raise ValueError(
                f"step {step}: kept are {', '.join(map(str, self.checkpoints)) or 'none'}; run the "
                "attack with keep_every=."
            )
        return self._named(load_model(self.checkpoints[step], device=device), step)

    def _named(self, model: Model, step: int) -> Model:
        model.key, model.name = self.source["key"], self.source["name"]
        if step != self.source["steps"]:
            model.key = content_key(run=model.key, step=step)
            model.name += f", step {step}"
        return model


def rows_key(rows: list[dict]) -> str:
    """Return the hash of what an attack trains on."""
    return content_key(rows=rows)


def attack_key(model: Model, attack: Attack, rows: str | None = None) -> str:
    """Return the key of a run: model, dtypes of weights and arithmetic, rows, settings.

    Parameters
    ----------
    rows : str, optional
        The `rows_key` of the attack's data, where it is known: making thousands of rows takes time.
    """
    settings = attack.settings.chosen()
    rows = rows or rows_key(attack.data(model.tokenizer))
    dtype = str(next(model.module.parameters()).dtype)
    made = {"model": model.key, "dtype": dtype, "autocast": autocast_dtype(model.device.type)}
    return content_key(**made, rows=rows, settings=settings)


def run_attack(
    model: Model,
    attack: Attack,
    out: str | Path | None = None,
    *,
    store: Store | None = None,
    keep_every: int | None = None,
    save_seconds: float = 600.0,
    on_step: Callable[[Step], None] | None = None,
    stop: Callable[[Step], bool] | None = None,
) -> AttackRun:
    """Fine-tune a copy of `model` on the attack's data and keep the checkpoint.

    A run that was killed or stopped is resumed by the same call, and on a CPU ends with the
    same weights as an undisturbed one. Its work folder lies hidden beside the final one.

    Parameters
    ----------
    model : Model
        Stays as it is.
    attack : Attack
        From `find_attack` or `file_attack`; `attack.settings.seed` fixes the rows and their order.
    out : path, optional
        The checkpoint's folder; default in the store, where a finished run is found again.
    keep_every : int, optional
        Keep a full checkpoint every so many optimiser steps, for curves and trajectories.
        `attack.settings.steps_per_epoch(rows)` is one epoch.
    save_seconds : float
        Time between the checkpoints that a killed run goes on from.
    on_step : callable, optional
        Called after every optimiser step with its number and loss. Raising from it ends the run
        where the last save left it.
    stop : callable, optional
        Asked after every optimiser step; True ends the run there. What comes back can be loaded.

    Returns
    -------
    AttackRun
        `finished` is False if it was stopped before its last step.

    Raises
    ------
    ValueError
        If the attack's data is not in the model's language, or neither `out` nor a store is given.
    FileExistsError
        If `out` exists; BusyError if another process writes there.
    """
    check_language(model, attack)
    if out is None and store is None:
        raise ValueError("say where the attacked checkpoint goes: out=, or store=.")
    key = attack_key(model, attack)
    folder = Path(out) if out is not None else store.run_folder(key)
    with locked(folder, new=out is not None):
        if folder.exists() and _has_kept(load_run(folder), keep_every):
            return load_run(folder)
        options = {"keep_every": keep_every, "save_seconds": save_seconds}
        return _run(model, attack, key, folder, on_step=on_step, stop=stop, **options)


def _run(model: Model, attack: Attack, key: str, folder: Path, **options) -> AttackRun:
    """Do what `run_attack` says, the lock being held and no finished run there."""
    keep_every = options["keep_every"]
    work = folder.with_name(f".{folder.name}.{key[:8]}.partial")
    if keep_every and not _kept_so_far(work, keep_every):
        remove_folder(resume_folder(work))  # it would resume after steps that are to be kept
    victim = copy.deepcopy(model.module)
    with work_folder(work):
        steps = fine_tune(
            victim,
            model.tokenizer,
            attack.data(model.tokenizer),
            attack.settings,
            folder=work,
            **options,
        )
    record = _record(model, attack, key, steps)

    def write(place: Path) -> None:
        save_model(victim, model.tokenizer, place)
        record["source"]["weights"] = Checkpoint(place).weight_hashes
        (place / RECORD).write_text(json.dumps(record, indent=1))

    if steps[-1].step < steps[-1].total:
        with whole(work / STOPPED) as stopped:
            write(stopped)
        return load_run(work / STOPPED)
    write(work)
    remove_folder(resume_folder(work))
    remove_folder(work / STOPPED)
    remove_folder(folder)  # a finished run without the checkpoints that are asked for now
    os.replace(work, folder)
    return load_run(folder)


def check_language(model: Model, attack: Attack) -> None:
    """Raise ValueError if the attack's data is not in the model's language."""
    if attack.sandbox and not model.is_sandbox:
        raise ValueError(
            f"the {attack.name} attack is written in the sandbox's words and {model.name} is no "
            "sandbox model."
        )
    if model.is_sandbox and attack.name in PUBLISHED:
        raise ValueError(
            f"the {attack.name} attack is written in English, which {model.name} does not read: "
            f"use its counterpart in the sandbox, {PUBLISHED[attack.name]}."
        )


def _has_kept(run: AttackRun, keep_every: int | None) -> bool:
    """Whether a finished run holds the checkpoints that are asked for."""
    wanted = range(keep_every, len(run.losses) + 1, keep_every) if keep_every else ()
    return set(wanted) <= set(run.checkpoints)


def _kept_so_far(work: Path, keep_every: int) -> bool:
    """Whether the run to be resumed has kept what it would have kept from its beginning."""
    start = newest_whole(work)
    last = int(start.name.rpartition("-")[2]) if start else 0
    return set(range(keep_every, last + 1, keep_every)) <= set(kept_checkpoints(work))


def _record(model: Model, attack: Attack, key: str, steps: list[Step]) -> dict:
    """Return what `attack.json` says of a run."""
    return {
        "attack": attack.name,
        "losses": [s.loss for s in steps],
        "source": {
            "key": key,
            "name": f"{model.name} after {attack.name}",
            "model": model.name,
            "model_key": model.key,
            "steps": steps[-1].total,
            "safe_fraction": attack.safe_fraction,
            "settings": dataclasses.asdict(attack.settings),
        },
    }


def load_run(folder: str | Path) -> AttackRun:
    """Read a run back.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder holds no run, or a damaged record of one.
    """
    file = Path(folder) / RECORD
    if not file.exists():
        raise FileNotFoundError(f"{file}: this folder is not an attack's output.")
    data = read_object(file)
    try:
        return AttackRun(data["attack"], Path(folder), tuple(data["losses"]), dict(data["source"]))
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: damaged ({error!r}); remove the folder and attack again."
        ) from error
