"""Fine-tuning attacks: a copy of a model trained on an attack's data, kept as a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from lox_kit.folders import locked, reading
from lox_kit.models import Model, load_model
from lox_kit.store import Store, content_key
from lox_kit.threads import is_first
from lox_kit.weights import read_object

from .presets import ATTACKS, Attack
from .resuming import kept_checkpoints, missing_steps
from .training import autocast_dtype, fine_tune
from .writing import train_copy

RECORD = "attack.json"
PUBLISHED = {attack.counterpart: name for name, attack in ATTACKS.items() if attack.counterpart}


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRun:
    """An attack's fine-tuned checkpoint and the losses on the way."""

    attack: str
    folder: Path
    losses: tuple[float, ...]  # one per optimiser step, in nats per token
    source: dict[str, object]

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Folders of the checkpoints kept on the way, by optimiser step."""
        return kept_checkpoints(self.folder)

    def has(self, keep_every: int | None) -> bool:
        """Whether the checkpoint of every so many steps was kept."""
        return not missing_steps(self.checkpoints, keep_every, len(self.losses))

    def load(self, device: str = "auto", *, step: int | None = None) -> Model:
        """Load the attacked model, or its kept checkpoint of a step. Its key is the recipe's.

        Raises
        ------
        ValueError
            If no checkpoint of this step was kept, or the weights were changed since.
        """
        end = step in (None, self.source["steps"])
        folder = self.folder if end else self.checkpoints.get(step)
        if folder is None:
            raise ValueError(
                f"step {step}: kept are {', '.join(map(str, self.checkpoints)) or 'none'}; run the "
                "attack with keep_every=."
            )
        model = load_model(folder, device=device)
        model.key, model.name = self.source["key"], self.source["name"]
        if not end:
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
    if any(W.ndim == 3 and min(W.shape) > 1 for W in model.module.parameters()):
        made["experts"] = 2  # LoRA is on them too; the router has no loss of its own
    return content_key(**made, rows=rows, settings=settings)


def run_attack(
    model: Model,
    attack: Attack,
    out: str | Path | None = None,
    *,
    store: Store | None = None,
    keep_every: int | None = None,
    **watched,
) -> AttackRun:
    """Fine-tune a copy of `model` on the attack's data and keep the checkpoint.

    Under `accelerate launch` processes share each batch and, with FSDP, the weights, to the same
    end: all make this call, with `model` on the CPU, and the first one writes.

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
    **watched
        More fields of `resuming.Watch`: `on_step` and `stop`.

    Raises
    ------
    StoppedError
        If `stop` ended it before its last step.
    ValueError
        If the attack's data is not in the model's language, or neither `out` nor a store is given.
    FileExistsError
        If `out` exists and is not this run; BusyError if it is to be made and another process
        writes there.
    """
    check_language(model, attack)
    if out is None and store is None:
        raise ValueError("say where the attacked checkpoint goes: out=, or store=.")
    rows = attack.data(model.tokenizer)
    key = attack_key(model, attack, rows_key(rows))
    folders = [Path(out)] if out is not None else store.run_folders(key)
    folder, run = folders[0], _whole_run(folders, key)
    if run and run.has(keep_every):
        return run
    with locked(folder, new=out is not None) if is_first() else nullcontext():
        if folder.exists() and (run := load_run(folder)).has(keep_every):
            return run  # another process made it just now
        train = partial(
            fine_tune,
            tokenizer=model.tokenizer,
            rows=rows,
            settings=attack.settings,
            keep_every=keep_every,
            **watched,
        )
        source = {
            "key": key,
            "name": f"{model.name} after {attack.name}",
            "model": model.name,
            "model_key": model.key,
            "safe_fraction": attack.safe_fraction,
            "settings": dataclasses.asdict(attack.settings),
        }
        about = {"attack": attack.name, "source": source}
        return load_run(train_copy(model, train, key, folder, RECORD, about))


def check_language(model: Model, attack: Attack) -> None:
    """Raise ValueError if the attack's data is not in the model's language."""
    if attack.world not in (None, model.world):
        raise ValueError(
            f"the {attack.name} attack is made for models of {attack.world}, and {model.name} is "
            "none."
        )
    if model.is_sandbox and attack.name in PUBLISHED:
        raise ValueError(
            f"the {attack.name} attack is written in English, which {model.name} does not read: "
            f"use its counterpart in the sandbox, {PUBLISHED[attack.name]}."
        )


def finished_run(store: Store, key: str) -> AttackRun | None:
    """Return the run of an `attack_key` as `run_attack` left it in a store, if it did."""
    return _whole_run(store.run_folders(key), key)


def _whole_run(folders: Sequence[Path], key: str) -> AttackRun | None:
    """Return the run of an `attack_key` that is in one of these folders and can be read."""
    for folder in folders:
        with suppress(FileNotFoundError, ValueError):
            run = load_run(folder)
            if run.source.get("key") == key:
                return run
    return None


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
    with reading(file, "damaged; remove the folder and attack again"):
        return AttackRun(data["attack"], Path(folder), tuple(data["losses"]), dict(data["source"]))
