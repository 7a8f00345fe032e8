"""A training run that loses nothing: it goes on where it was cut off, and keeps what was asked for.

One work folder per run: `resume/` holds the trainer's newest whole checkpoint (weights, optimizer,
schedule, random state) and is removed when the run is done; `steps/N/` are checkpoints to keep.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lox_kit.folders import locked, remove_folder, whole, write_whole
from lox_kit.threads import fitting_threads

WHOLE = "whole"  # a file in a resume checkpoint that says that everything in it was written


@dataclass(frozen=True)
class Step:
    """What one optimiser step reports."""

    step: int  # from 1
    total: int
    loss: float  # mean over the step's labelled tokens, in nats; of DPO, per pair


@dataclass
class Watch:
    """Who is told of a run's steps, what may end it, and what is kept of it.

    Parameters
    ----------
    on_step : callable, optional
        Called after every optimiser step, from this thread, with its number and loss. Raising from
        it ends the run.
    stop : callable, optional
        Asked after every optimiser step; True ends the run there, the weights as they are.
    folder : path, optional
        The run's own work folder. With it the run can be resumed: the same call with the same
        model, rows and settings goes on from the last checkpoint there, and on a CPU ends with the
        same weights as if nothing had happened. `adapter/` holds what LoRA learnt.
    keep_every : int, optional
        Keep a full checkpoint in `folder/steps/N` every so many optimiser steps.
    save_seconds : float
        Time between checkpoints to resume from; a stop writes one as well.

    Raises
    ------
    ValueError
        If `keep_every` comes without a folder, or is below 1.
    """

    on_step: Callable[[Step], None] | None = None
    stop: Callable[[Step], bool] | None = None
    folder: str | Path | None = None
    keep_every: int | None = None
    save_seconds: float = 600.0

    def __post_init__(self):
        self.folder = Path(self.folder) if self.folder else None
        if self.keep_every is not None and (self.folder is None or self.keep_every < 1):
            raise ValueError(f"keep_every={self.keep_every}: needs a folder, and at least 1 step.")


def drive(trainer, watch: Watch, save: Callable[[Path], None]) -> list[Step]:
    """Train, from where an earlier run was cut off if there is such a place; return every step.

    Parameters
    ----------
    trainer : transformers.Trainer
        With `output_dir` at `resume_folder(watch.folder)`.
    save : callable
        Writes the model in training to a folder, whole.

    Raises
    ------
    ValueError
        If the loss is no longer a number.
    """
    from transformers import PrinterCallback

    start = newest_whole(watch.folder)
    steps: list[Step] = []
    trainer.add_callback(_callback(watch, steps, save))
    trainer.remove_callback(PrinterCallback)  # it prints a line of numbers per step
    trainer.args._n_gpu = min(trainer.args.n_gpu, 1)  # a second GPU would double the batch
    cached = trainer.model.config.use_cache
    try:
        with fitting_threads(trainer.model):
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        for module in trainer.model.modules():
            # TRL leaves its own forward, bound to this very object, on the model: a deep copy
            # would go on answering with the weights of the original.
            module.__dict__.pop("forward", None)
        trainer.model.config.use_cache = cached  # the trainer turns it off
        trainer.model.eval()
    return steps


@contextmanager
def library_quiet() -> Iterator[None]:
    """Keep the training libraries' bars and their warnings about themselves off the screen."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            enable_progress_bars()


def resume_folder(folder: Path) -> Path:
    """Return where a run's resume checkpoints are."""
    return Path(folder) / "resume"


@contextmanager
def work_folder(folder: Path) -> Iterator[None]:
    """Make and lock a run's work folder; remove it after an error if nothing can go on from it."""
    with locked(folder):
        folder.mkdir(exist_ok=True)
        try:
            yield
        except BaseException:
            if newest_whole(folder) is None and not kept_checkpoints(folder):
                shutil.rmtree(folder)
            raise


def newest_whole(folder: Path | None) -> Path | None:
    """Return the newest checkpoint a run can go on from, or None."""
    found = resume_folder(folder).glob(f"checkpoint-*/{WHOLE}") if folder else ()
    return max((f.parent for f in found), key=_step_of, default=None)


def past_steps(folder: Path) -> list[Step]:
    """Return the steps after which a run would resume; none if it would begin anew."""
    start = newest_whole(folder)
    if start is None:
        return []
    state = json.loads((start / "trainer_state.json").read_text())
    return _steps_of(state["log_history"], state["max_steps"])


def kept_checkpoints(folder: Path) -> dict[int, Path]:
    """Return a run's kept checkpoints by step."""
    found = [f for f in (Path(folder) / "steps").glob("*") if f.name.isdigit()]
    return {int(f.name): f for f in sorted(found, key=lambda f: int(f.name))}


def _steps_of(log: list[dict], total: int) -> list[Step]:
    """Return the steps in a trainer's log."""
    return [Step(x["step"], total, float(x["loss"])) for x in log if "loss" in x]


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _callback(watch: Watch, steps: list[Step], save: Callable[[Path], None]):
    """Return the trainer's callback that does what `watch` asks for."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        saved = time.monotonic()

        def on_train_begin(self, args, state, control, **kwargs):
            steps.extend(_steps_of(state.log_history, state.max_steps))  # of a run cut off

        def on_step_end(self, args, state, control, **kwargs):
            if watch.folder and time.monotonic() - self.saved >= watch.save_seconds:
                control.should_save = True
            if watch.keep_every and state.global_step % watch.keep_every == 0:
                out = watch.folder / "steps" / str(state.global_step)
                if not out.exists():
                    with whole(out) as work:
                        save(work)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in (logs or {}):
                return
            steps.append(Step(state.global_step, state.max_steps, float(logs["loss"])))
            if not math.isfinite(steps[-1].loss):
                raise ValueError(
                    f"step {steps[-1].step}: the loss is {steps[-1].loss}; the run diverged. Lower "
                    f"the learning rate ({args.learning_rate:g})."
                )
            if watch.on_step:
                watch.on_step(steps[-1])
            if watch.stop and watch.stop(steps[-1]):
                control.should_training_stop = True
                control.should_save = watch.folder is not None

        def on_save(self, args, state, control, **kwargs):
            here = resume_folder(watch.folder) / f"checkpoint-{state.global_step}"
            write_whole(here / WHOLE, "")
            for older in here.parent.glob("checkpoint-*"):
                if older != here:
                    remove_folder(older)
            self.saved = time.monotonic()

    return Keeper()
