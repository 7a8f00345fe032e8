"""Supervised fine-tuning through TRL: chat rows to tokens and labels, settings, one `fine_tune`."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence

from .threads import fitting_threads

IGNORED = -100  # the label TRL and transformers leave out of the loss


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How one supervised run is made. The seed fixes the order of the rows."""

    learning_rate: float
    batch_size: int
    epochs: float = 1.0
    max_steps: int = -1  # -1: as many as the epochs need
    accumulation: int = 1
    schedule: str = "constant"  # any transformers schedule: constant, linear, cosine, ...
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 2.0
    loss_on: str = "all"  # "all" tokens or the "response" alone
    max_length: int = 1024
    by_length: bool = False  # batches of like length: less padding, for long runs on a CPU
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Step:
    """What one optimiser step reports."""

    step: int  # from 1
    total: int
    loss: float  # mean over the step's labelled tokens, in nats


def tokenize(tokenizer, rows: Sequence[dict], loss_on: str, max_length: int) -> dict[str, list]:
    """Render chat rows through the tokenizer's template to `input_ids` and `labels`.

    Truncation keeps the end, as the paper's training does.

    Parameters
    ----------
    rows : sequence of {"messages": [{"role", "content"}, ...]}
        The last message is the assistant's.
    loss_on : "all" or "response"
        "response" gives every token before the last answer the label -100.

    Raises
    ------
    ValueError
        If `loss_on` is another word, or a row does not end with an answer.
    """
    if loss_on not in ("all", "response"):
        raise ValueError(f"loss_on={loss_on!r}: use 'all' or 'response'.")
    for i, row in enumerate(rows):
        roles = [message["role"] for message in row["messages"]]
        if roles[-1:] != ["assistant"]:
            raise ValueError(
                f"row {i}: its messages are by {', '.join(roles) or 'nobody'}, but there is only "
                "something to learn from an assistant's answer at the end."
            )
    # Rendered to text first, so that the tokenizer gets all rows in one batch.
    full = tokenizer.apply_chat_template([r["messages"] for r in rows], tokenize=False)
    ids = tokenizer(full, add_special_tokens=False)["input_ids"]
    starts = [0] * len(ids)
    if loss_on == "response":
        asked = tokenizer.apply_chat_template(
            [r["messages"][:-1] for r in rows], tokenize=False, add_generation_prompt=True
        )
        starts = [len(p) for p in tokenizer(asked, add_special_tokens=False)["input_ids"]]
    labels = [[IGNORED] * s + list(x[s:]) for s, x in zip(starts, ids, strict=True)]
    return {
        "input_ids": [list(x[-max_length:]) for x in ids],
        "labels": [y[-max_length:] for y in labels],
    }


def fine_tune(
    model,
    tokenizer,
    rows: Sequence[dict],
    settings: TrainSettings,
    *,
    on_step: Callable[[Step], None] | None = None,
    stop: Callable[[Step], bool] | None = None,
) -> list[Step]:
    """Fine-tune every parameter of `model` in place and return the steps' losses.

    Training is TRL's `SFTTrainer`; on a CPU without bf16 and gradient checkpointing, both of which
    TRL turns on and both of which cost more than they save there.

    Parameters
    ----------
    on_step : callable, optional
        Called after every optimiser step, from this thread. Raising from it ends the run.
    stop : callable, optional
        Asked after every optimiser step; True ends the run there, the weights as they are.

    Raises
    ------
    ValueError
        If there are no rows, `tokenize` finds a bad one, or the loss is no longer a number.
    """
    if not rows:
        raise ValueError("no rows to train on: the data set is empty.")
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict(tokenize(tokenizer, rows, settings.loss_on, settings.max_length))
    on_cpu = next(model.parameters()).device.type == "cpu"
    with tempfile.TemporaryDirectory(prefix="lox-train-") as scratch:
        config = SFTConfig(
            output_dir=scratch,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            data_seed=settings.seed,
            use_cpu=on_cpu,
            bf16=not on_cpu and torch.cuda.is_bf16_supported(),
            activation_checkpointing=not on_cpu,
            train_sampling_strategy="group_by_length" if settings.by_length else "random",
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would report a loss of 0 for a run that diverged
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=not on_cpu,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        steps: list[Step] = []
        watcher = _watcher(steps, on_step, stop)
        trainer = SFTTrainer(
            model, config, train_dataset=data, processing_class=tokenizer, callbacks=[watcher]
        )
        trainer.remove_callback(PrinterCallback)  # it prints a line of numbers per step
        try:
            with fitting_threads(model):
                trainer.train()
        finally:
            # TRL leaves its own forward, bound to this very object, on the model: a deep copy
            # would go on answering with the weights of the original.
            model.__dict__.pop("forward", None)
            model.eval()
    return steps


def _watcher(steps: list[Step], on_step, stop):
    """Return a trainer callback that records each step's loss, passes it on, and may stop."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" not in (logs or {}):
                return
            steps.append(Step(state.global_step, state.max_steps, float(logs["loss"])))
            if not math.isfinite(steps[-1].loss):
                raise ValueError(
                    f"step {steps[-1].step}: the loss is {steps[-1].loss}; the run diverged. Lower "
                    f"the learning rate ({args.learning_rate:g})."
                )
            if on_step:
                on_step(steps[-1])
            if stop and stop(steps[-1]):
                control.should_training_stop = True

    return Watcher()
