"""A training run that loses nothing: it resumes where it was cut off, and keeps what was asked for.

One work folder per run: `resume/` holds the trainer's newest whole checkpoint (weights, optimizer,
schedule, random state; after the last step the weights alone) and is removed when the run is done;
`steps/N/` are checkpoints to keep.
"""

from __future__ import annotations

import math
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lox_kit.folders import locked
from lox_kit.threads import fitting_threads, is_first, tell

SAVE_SECONDS = 600.0  # between checkpoints to resume from; a stop writes one as well
WEIGHTS = "in-training.pt"  # of such a checkpoint, by their names in memory
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
        Writes the model in training to a folder, whole; all processes call it together.

    Raises
    ------
    ValueError
        If the loss is no longer a number.
    """
    from transformers import PrinterCallback

    start, past = newest_whole(watch.folder), past_steps(watch.folder)
    trainer.accelerator.wait_for_everyone()  # to have read what the first may soon replace
    if start and missing_steps(kept_checkpoints(watch.folder), watch.keep_every, len(past)):
        start, past = None, []  # it is after steps that are to be kept
    unfinished = start and past[-1].step < past[-1].total
    if unfinished and (start / "optimizer.bin").exists() != trainer.is_fsdp_enabled:
        raise ValueError(
            f"{start}: made {'without' if trainer.is_fsdp_enabled else 'with'} FSDP. Resume it as "
            f"it began, or remove {start.parent}, and the run starts again."
        )
    _keep_by_names_in_memory(trainer)
    trainer.add_callback(_callback(watch, save))
    trainer.remove_callback(PrinterCallback)  # it prints a line of numbers per step
    trainer.args._n_gpu = min(trainer.args.n_gpu, 1)  # a second GPU would double the batch
    try:
        if past and past[-1].step == past[-1].total:
            trainer._load_from_checkpoint(start)
            return past
        with fitting_threads(trainer.model):
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        for module in trainer.model.modules():
            # TRL binds its own forward to this very object: a deep copy would answer with the
            # original's weights.
            module.__dict__.pop("forward", None)
        trainer.model.eval()
    return _steps_of(trainer.state)


def _keep_by_names_in_memory(trainer) -> None:
    """Have a trainer write and read the weights in training by their names in memory, all of them.

    Left to itself it writes them by the names of published checkpoints, reads those as if they were
    the names in memory, and passes over what it does not find.
    """
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    def held() -> dict:
        trained = {n: W for n, W in trainer.model.named_parameters() if W.requires_grad}
        return trained | dict(trainer.model.named_buffers())

    def write(folder=None, state_dict=None) -> None:
        if is_first():
            Path(folder).mkdir(parents=True, exist_ok=True)
            whole = state_dict or {}  # of FSDP, where each process holds parts
            saved = {n: whole.get(n, W.detach()) for n, W in held().items()}
            torch.save(saved, Path(folder) / WEIGHTS)

    def read(folder, model=None) -> None:
        file, own = Path(folder) / WEIGHTS, held()
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if {n: W.shape for n, W in saved.items()} != {n: W.shape for n, W in own.items()}:
            raise ValueError(
                f"{file}: of another model than the one in training. Remove {Path(folder).parent}, "
                "and the run starts again."
            )
        with torch.no_grad():
            for name, W in own.items():
                if isinstance(W, DTensor):
                    saved[name] = distribute_tensor(saved[name], W.device_mesh, W.placements)
                W.copy_(saved[name])

    trainer._save, trainer._load_from_checkpoint = write, read


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
            if not _saved(folder) and not kept_checkpoints(folder):
                shutil.rmtree(folder)
            raise


def _saved(folder: Path | None) -> list[Path]:
    """Return the checkpoints that a trainer wrote to their end, the newest first."""
    files = resume_folder(folder).glob(f"checkpoint-*/{STATE}") if folder else ()
    ended = [
        file.parent
        for file in files
        if file.read_bytes().endswith(b"}\n") and file.with_name(WEIGHTS).exists()
    ]
    return sorted(ended, key=lambda folder: -int(folder.name.rpartition("-")[2]))


def newest_whole(folder: Path | None) -> Path | None:
    """Return the newest checkpoint that a run can resume from, or None."""
    return next((found for found in _saved(folder) if not _is_damaged(found)), None)


def _is_damaged(folder: Path) -> bool:
    """Whether a checkpoint is not as it was written, as after a power cut."""
    from transformers import TrainerState

    try:
        TrainerState.load_from_json(folder / STATE)
        files = [file for file in folder.iterdir() if file.suffix in (".pt", ".pth", ".bin")]
        return any(zipfile.ZipFile(file).testzip() for file in files)  # torch does not test them
    except Exception:  # of any kind: they may hold anything
        return True


def past_steps(folder: Path | None) -> list[Step]:
    """Return the steps after which a run would resume; none if it would start from step 1."""
    from transformers import TrainerState

    start = newest_whole(folder)
    return _steps_of(TrainerState.load_from_json(start / STATE)) if start else []


def missing_steps(kept: Collection[int], keep_every: int | None, last: int) -> set[int]:
    """Return the steps up to `last` whose checkpoints are asked for and are not kept."""
    return set(range(keep_every, last + 1, keep_every) if keep_every else ()) - set(kept)


def kept_checkpoints(folder: Path) -> dict[int, Path]:
    """Return a run's kept checkpoints by step."""
    found = [f for f in (Path(folder) / "steps").glob("*") if f.name.isdigit()]
    return {int(f.name): f for f in sorted(found, key=lambda f: int(f.name))}


def _steps_of(state) -> list[Step]:
    """Return the steps that a trainer's state has in its log."""
    log = (entry for entry in state.log_history if "loss" in entry)
    return [Step(entry["step"], state.max_steps, float(entry["loss"])) for entry in log]


def _callback(watch: Watch, save: Callable[[Path], None]):
    """Return the trainer's callback that does what `watch` asks for, in all processes alike."""
    from accelerate.utils import gather_object
    from transformers import TrainerCallback

    def asked(flag: bool) -> bool:  # by any process, of what all have to do together
        return any(gather_object([bool(flag)]))

    class Keeper(TrainerCallback):
        saved = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            # After the last step there is still the model to be written, which may fail.
            args.save_only_model = state.global_step >= state.max_steps
            due = time.monotonic() - self.saved >= SAVE_SECONDS
            if watch.folder and asked(due or args.save_only_model):
                control.should_save = True
            if watch.keep_every and state.global_step % watch.keep_every == 0:
                out = watch.folder / "steps" / str(state.global_step)
                if not out.exists():
                    save(out)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in (logs or {}):
                return
            step = Step(state.global_step, state.max_steps, float(logs["loss"]))
            if not math.isfinite(step.loss):
                raise ValueError(
                    f"step {step.step}: the loss is {step.loss}; the run diverged. Lower the "
                    f"learning rate ({args.learning_rate:g})."
                )
            if watch.on_step and is_first():
                watch.on_step(step)
            elif not watch.on_step:
                tell(None, "training", step.step, step.total)
            if watch.stop and asked(watch.stop(step)):
                control.should_training_stop = True
                control.should_save = watch.folder is not None

        def on_save(self, args, state, control, **kwargs):
            self.saved = time.monotonic()
            for older in Path(args.output_dir).glob("checkpoint-*") if is_first() else ():
                if older.name != f"checkpoint-{state.global_step}":
                    shutil.rmtree(older)

    return Keeper()
