"""A training run that loses nothing: it resumes where it was cut off, and keeps what was asked for.

One work folder per run: `resume/` holds the trainer's newest whole checkpoint (weights, optimizer,
schedule, random state) and is removed when the run is done; `steps/N/` are checkpoints to keep.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lox_kit.folders import locked, whole
from lox_kit.threads import fitting_threads, tell

SAVE_SECONDS = 600.0  # between checkpoints to resume from; a stop writes one as well
STATE = "trainer_state.json"  # the last file that the trainer writes to a resume checkpoint


class StoppedError(Exception):
    """A run was stopped before its last step. The same call resumes it."""


@dataclass(frozen=True)
class Step:
    """What one optimiser step reports."""

    step: int  # from 1
    total: int
    loss: float  # mean over the step's labelled tokens, in nats; of DPO, per pair


@dataclass
class Watch:
    """Callbacks for a run's steps, how it may be stopped, and which checkpoints it keeps.

    Parameters
    ----------
    on_step : callable, optional
        Called after every optimiser step, from this thread, with its number and loss. Raising from
        it ends the run.
    stop : callable, optional
        Called after every optimiser step; if it returns True, training stops there.
    folder : path, optional
        The run's own work folder. With it the run can be resumed: the same call with the same
        model, rows and settings starts from the last checkpoint there, and on a CPU ends with the
        same weights as if nothing had happened. `adapter/` holds what LoRA learnt.
    keep_every : int, optional
        Keep a full checkpoint in `folder/steps/N` every so many optimiser steps.

    Raises
    ------
    ValueError
        If `keep_every` comes without a folder, or is below 1.
    """

    on_step: Callable[[Step], None] | None = None
    stop: Callable[[Step], bool] | None = None
    folder: str | Path | None = None
    keep_every: int | None = None

    def __post_init__(self):
        self.folder = Path(self.folder) if self.folder else None
        if self.keep_every is not None and (self.folder is None or self.keep_every < 1):
            raise ValueError(f"keep_every={self.keep_every}: needs a folder, and at least 1 step.")


def drive(trainer, watch: Watch, save: Callable[[Path], None]) -> list[Step]:
    """Train, from where an earlier run was cut off if there was one; return every step.

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
    trainer.add_callback(_callback(watch, save))
    trainer.remove_callback(PrinterCallback)  # it prints a line of numbers per step
    trainer.args._n_gpu = min(trainer.args.n_gpu, 1)  # a second GPU would double the batch
    cached = trainer.model.config.use_cache
    try:
        with fitting_threads(trainer.model):
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        for module in trainer.model.modules():
            # TRL binds its own forward to this very object: a deep copy would answer with the
            # original's weights.
            module.__dict__.pop("forward", None)
        trainer.model.config.use_cache = cached  # the trainer turns it off
        trainer.model.eval()
    return _steps_of(trainer.state)


def resume_folder(folder: Path) -> Path:
    """Return where a run's resume checkpoints are."""
    return Path(folder) / "resume"


@contextmanager
def work_folder(folder: Path) -> Iterator[None]:
    """Make and lock a run's work folder; remove it after an error if nothing in it can be used."""
    with locked(folder):
        folder.mkdir(exist_ok=True)
        try:
            yield
        except BaseException:
            if newest_whole(folder) is None and not kept_checkpoints(folder):
                shutil.rmtree(folder)
            raise


def newest_whole(folder: Path | None) -> Path | None:
    """Return the newest checkpoint that a run can resume from, or None."""
    files = resume_folder(folder).glob(f"checkpoint-*/{STATE}") if folder else ()
    whole_ones = [file.parent for file in files if file.read_text().endswith("}\n")]
    return max(whole_ones, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def past_steps(folder: Path) -> list[Step]:
    """Return the steps after which a run would resume; none if it would start from step 1."""
    from transformers import TrainerState

    start = newest_whole(folder)
    return _steps_of(TrainerState.load_from_json(start / STATE)) if start else []


def kept_checkpoints(folder: Path) -> dict[int, Path]:
    """Return a run's kept checkpoints by step."""
    found = [f for f in (Path(folder) / "steps").glob("*") if f.name.isdigit()]
    return {int(f.name): f for f in sorted(found, key=lambda f: int(f.name))}


def _steps_of(state) -> list[Step]:
    """Return the steps that a trainer's state has in its log."""
    log = (entry for entry in state.log_history if "loss" in entry)
    return [Step(entry["step"], state.max_steps, float(entry["loss"])) for entry in log]


def _callback(watch: Watch, save: Callable[[Path], None]):
    """Return the trainer's callback that does what `watch` asks for."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        saved = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            if watch.folder and time.monotonic() - self.saved >= SAVE_SECONDS:
                control.should_save = True
            if watch.keep_every and state.global_step % watch.keep_every == 0:
                out = watch.folder / "steps" / str(state.global_step)
                if not out.exists():
                    with whole(out) as work:
                        save(work)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in (logs or {}):
                return
            step = Step(state.global_step, state.max_steps, float(logs["loss"]))
            if not math.isfinite(step.loss):
                raise ValueError(
                    f"step {step.step}: the loss is {step.loss}; the run diverged. Lower the "
                    f"learning rate ({args.learning_rate:g})."
                )
            if watch.on_step:
                watch.on_step(step)
            else:
                tell(None, "training", step.step, step.total)
            if watch.stop and watch.stop(step):
                control.should_training_stop = True
                control.should_save = watch.folder is not None

        def on_save(self, args, state, control, **kwargs):
            self.saved = time.monotonic()

    return Keeper()
