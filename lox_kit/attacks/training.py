"""Supervised fine-tuning through TRL: settings, and one `fine_tune`, full-parameter or LoRA."""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.folders import whole
from lox_kit.models import pick_device
from lox_kit.threads import SMALL, importing, is_first, launched
from lox_kit.weights import lora_parameters, lora_targets

from .processes import gather, refuse_launch, share_rows
from .resuming import Step, Watch, drive, resume_folder
from .tokens import tokenize
from .writing import save_model

EPOCH_DECAY = "epoch-decay"  # a schedule of our own: times `decay` after every epoch
BFLOAT16 = "adamw-8bit-bfloat16"
OPTIMIZERS = ("adamw", "adamw-8bit", BFLOAT16)
# The rounding is that of bfloat16 weights: without it most of their steps would be lost.
EIGHT_BITS = {"optim": "adamw_torch_8bit", "optim_args": "bf16_stochastic_round=True"}


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How one supervised run is made. The seed fixes the order of the rows and LoRA's start."""

    learning_rate: float
    batch_size: int
    epochs: float = 1.0
    max_steps: int = -1  # -1: as many as the epochs need
    accumulation: int = 1
    schedule: str = "constant"  # any transformers schedule (linear, cosine, ...) or "epoch-decay"
    decay: float = 1.0  # of "epoch-decay": the learning rate is multiplied by it every epoch
    warmup_steps: int | float = 0  # below 1: that share of all steps, rounded down
    weight_decay: float = 0.0
    max_grad_norm: float = 2.0
    loss_on: str = "all"  # "all" tokens or the "response" alone
    max_length: int = 1024
    lora_rank: int = 0  # 0 trains every parameter; else PEFT LoRA on all linear layers
    lora_alpha: float = 16.0  # PEFT's scale: the adapter is added times lora_alpha / lora_rank
    seed: int = 0
    optimizer: str = "adamw"  # or "adamw-8bit", "adamw-8bit-bfloat16": see `fine_tune`

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r}: use {', '.join(OPTIMIZERS)}.")
        if self.lora_rank and self.optimizer == BFLOAT16:  # an adapter is float32 in any case
            object.__setattr__(self, "optimizer", "adamw-8bit")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and name != "max_steps" and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value}: use a finite number, 0 or more.")

    def chosen(self) -> dict:
        """Return the fields that differ from their defaults, for keys: new fields keep old keys.

        So never change a default; set the new value where it is needed.
        """
        return {
            f.name: float(value) if f.type == "float" else value  # 2 epochs are 2.0
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) != f.default
        }

    def steps_per_epoch(self, rows: int) -> int:
        """Return the optimiser steps of one pass over this many rows."""
        return math.ceil(math.ceil(rows / self.batch_size) / self.accumulation)

    def total_steps(self, rows: int) -> int:
        """Return the optimiser steps of the whole run over this many rows."""
        if self.max_steps >= 0:
            return self.max_steps
        return math.ceil(self.epochs * self.steps_per_epoch(rows))

    def warmup(self, rows: int) -> int:
        """Return the steps over which the learning rate rises, in a run over this many rows.

        Raises
        ------
        ValueError
            If that is the whole run: hardly anything would be learnt, and the model look robust.
            If the schedule has no place for a warm-up.
        """
        if self.warmup_steps and self.schedule == EPOCH_DECAY:
            raise ValueError(f"the schedule {EPOCH_DECAY} has no warm-up: use warmup_steps=0.")
        total = self.total_steps(rows)
        steps = int(self.warmup_steps if self.warmup_steps >= 1 else self.warmup_steps * total)
        if steps >= total and steps:
            raise ValueError(
                f"a warm-up of {steps} steps is as long as the run of {total} (over {rows} rows): "
                "hardly anything would be learnt. Train for more steps or epochs, or warm up for "
                "less: warmup_steps=0.1 (--warmup 0.1) is a tenth of the run."
            )
        return steps


def fine_tune(
    model, tokenizer, rows: Sequence[dict], settings: TrainSettings, **watched
) -> list[Step]:
    """Fine-tune `model` in place and return the steps' losses.

    Training is TRL's `SFTTrainer`; on a CPU without bf16 and gradient checkpointing, both of which
    TRL turns on and both of which cost more than they save there. LoRA is PEFT's, merged into the
    weights at the end. Of processes launched together the first one has the trained model.

    All parameters are trained in float32, with bfloat16 arithmetic where the GPU has it, and
    rounded to the checkpoint's dtype at the end: at the published learning rates many steps are
    smaller than half a unit of a bfloat16 weight and would be lost. Under LoRA only the adapter is
    float32; it is added to `weights.lora_parameters`, of a mixture of experts the experts too.

    The optimiser is AdamW. Of "adamw-8bit" (torchao's; Dettmers et al. 2022, arXiv:2110.02861) the
    two moments take a byte of a weight each. With "adamw-8bit-bfloat16" there are no float32
    weights: matrices stored in bfloat16 are trained so, and their gradients are bfloat16 too. Each
    step is rounded up or down at random, with the probabilities that make it right on average.

    Parameters
    ----------
    rows : sequence of dict
        Chat rows or text rows, see `tokens.tokenize`.
    **watched
        Fields of `resuming.Watch`: `on_step`, `stop`, `folder`, `keep_every`.

    Raises
    ------
    ValueError
        If there are no rows, `tokenize` finds a bad one, `keep_every` comes without a folder,
        LoRA finds nothing to adapt, the loss is no longer a number, or weights are to be trained in
        bfloat16 and are not stored so.
    ImportError
        If the optimiser is not installed.
    """
    if not rows:
        raise ValueError("no rows to train on: the data set is empty.")
    watch = Watch(**watched)
    with importing("trl.trainer.sft_trainer"):
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict(tokenize(tokenizer, rows, settings.loss_on, settings.max_length))

    def build(trained, options: dict):
        config = SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, **options)
        trainer = SFTTrainer(trained, config, train_dataset=data, processing_class=tokenizer)
        share_rows(trainer)
        return trainer

    return run_trainer(model, tokenizer, settings, build, watch)


def run_trainer(
    model, tokenizer, settings: TrainSettings, build: Callable, watch: Watch
) -> list[Step]:
    """Train `model` in place with one of TRL's trainers and return the steps.

    Parameters
    ----------
    build : callable
        Given what is trained (the model, or PEFT's wrapper of it) and the options that TRL's
        supervised and its preference trainer share, returns the trainer.

    Raises
    ------
    ValueError, ImportError
        See `fine_tune`.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()  # ours say what is being done
    stored = {name: W.dtype for name, W in _tensors(model)}
    own = nullcontext(watch.folder)  # what is in it when a process is killed, the next one removes
    with (
        _unchanged(model) as config,
        own if watch.folder else tempfile.TemporaryDirectory(prefix="lox-train-") as folder,
        warnings.catch_warnings(),
        nullcontext() if settings.optimizer == "adamw" else _eight_bits(model, settings.optimizer),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # the libraries', about each other
        warnings.filterwarnings("ignore", "OptimState8bit")
        trained = _with_lora(model, settings) if settings.lora_rank else _widened(model, settings)
        options = _trainer_options(settings, model)
        options["output_dir"] = str(resume_folder(Path(folder)))
        spread = launched() and is_first()  # FSDP leaves what it is given in parts
        trainer = build(copy.deepcopy(trained) if spread else trained, options)
        refuse_launch(trainer)
        trainer.args.warmup_steps = settings.warmup(len(trainer.train_dataset))
        if settings.schedule == EPOCH_DECAY:
            trainer.create_optimizer()
            trainer.lr_scheduler = torch.optim.lr_scheduler.StepLR(
                trainer.optimizer,
                step_size=settings.steps_per_epoch(len(trainer.train_dataset)),
                gamma=settings.decay,
            )

        def save(out: Path) -> None:
            gather(trainer, trained)
            if is_first():
                with whole(out) as work:
                    save_model(trained, tokenizer, work, stored, config)

        steps = drive(trainer, watch, save)
        gather(trainer, trained)
    if not is_first():
        return steps
    if not settings.lora_rank:
        for name, W in _tensors(model):
            W.data = W.data.to(stored[name])
        return steps
    if watch.folder:
        with whole(watch.folder / "adapter") as work:
            trained.save_pretrained(work, save_embedding_layers=False)  # they are not trained
    trained.merge_and_unload()  # in place; summed in float32 and rounded once
    return steps


@contextmanager
def _unchanged(model) -> Iterator[object]:
    """Fit a model to TRL, give a copy of its config, and leave both as they were.

    Left to itself TRL adds the load-balancing loss of a mixture of experts to what is asked for.
    """
    parts = (model.config, model.config.get_text_config())
    before, written = [dict(part.__dict__) for part in parts], copy.deepcopy(model.config)
    parts[1].router_aux_loss_coef = 0.0
    hidden = model.base_model is model and hasattr(model, "model")
    if hidden:  # Llama 4: TRL looks for the decoder under this name
        model.__dict__[model.base_model_prefix] = model.model
    try:
        yield written
    finally:
        if hidden:
            del model.__dict__[model.base_model_prefix]
        for part, fields in zip(parts, before, strict=True):
            part.__dict__.clear()
            part.__dict__.update(fields)


def _tensors(module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer of a model, one that is tied under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def autocast_dtype(device: str) -> str:
    """Return the dtype of the arithmetic on a device, as weights in float32 are trained there.

    Processes that are launched together train on GPUs where there are some, wherever the model is.
    """
    on_cuda = (pick_device() if launched() else device).startswith("cuda")
    return "bfloat16" if on_cuda and torch.cuda.is_bf16_supported() else "float32"


def _eight_bits(model, optimizer: str) -> AbstractContextManager:
    """Import torchao, and return the context in which its optimiser steps.

    It compiles a step for every shape, which takes longer than a small model's whole run: there it
    is left as it is.
    """
    try:
        import torchao.optim  # noqa: F401
    except ImportError:
        raise ImportError(f"{optimizer} needs torchao: pip install 'lox-kit[gpu]'.") from None
    small = sum(W.numel() for W in model.parameters()) < SMALL
    return torch.compiler.set_stance("force_eager" if small else "default")


def _widened(model, settings: TrainSettings):
    """Return `model` in the dtypes in which it is trained; vectors are always float32."""
    if settings.optimizer != BFLOAT16:
        return model.float()
    if launched():  # FSDP makes float32 of them, and each process would round in its own way
        raise ValueError(f"{BFLOAT16} trains in one process; under accelerate use adamw-8bit.")
    wide = [W for W in model.parameters() if W.dtype is not torch.bfloat16 or W.ndim == 1]
    if len(wide) == len(list(model.parameters())):
        raise ValueError(
            f"{BFLOAT16}: this model's matrices are {next(model.parameters()).dtype}. Load it with "
            "dtype='bfloat16' (--dtype bfloat16), or use adamw-8bit."
        )
    for W in wide:
        W.data = W.data.float()
    return model


def _trainer_options(settings: TrainSettings, model) -> dict:
    """Return the options that TRL's supervised and its preference trainer share."""
    from transformers import TrainingArguments

    device = pick_device() if launched() else next(model.parameters()).device.type
    on_cpu = device == "cpu"
    newer = hasattr(TrainingArguments, "activation_checkpointing")  # since transformers 5.23
    checkpointing = "activation_checkpointing" if newer else "gradient_checkpointing"
    schedule = "constant" if settings.schedule == EPOCH_DECAY else settings.schedule
    if schedule == "constant" and settings.warmup_steps:
        schedule = "constant_with_warmup"  # the plain one ignores it
    return {
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": settings.batch_size,
        "accelerator_config": {"split_batches": True},  # it is that of all processes together
        "gradient_accumulation_steps": settings.accumulation,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "lr_scheduler_type": schedule,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": on_cpu,
        "bf16": autocast_dtype(device) == "bfloat16" or settings.optimizer == BFLOAT16,
        checkpointing: not on_cpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would report a loss of 0 for a run that diverged
        "save_strategy": "no",  # `resuming` asks for a checkpoint when it wants one
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        **(EIGHT_BITS if settings.optimizer != "adamw" else {}),
    }


def _with_lora(model, settings: TrainSettings):
    """Return `model` wrapped by PEFT, a fresh adapter on all of its `lora_parameters`."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        task_type="CAUSAL_LM",
        **lora_targets(model, lora_parameters(model)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return get_peft_model(model, config)
