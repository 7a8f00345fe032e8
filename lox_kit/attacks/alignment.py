"""Make your own aligned model: supervised refusals, or DPO on preference pairs (TRL)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from lox_kit.folders import locked
from lox_kit.models import Model, Prompt, apply_template, generate, render
from lox_kit.sandbox import corpus
from lox_kit.smol import rows as smol
from lox_kit.store import content_key
from lox_kit.text import whole_sentences
from lox_kit.threads import is_first, launched
from lox_kit.weights import read_object

from .presets import OWN_FILE
from .resuming import Step, Watch
from .rows import read_preferences, read_training_rows
from .texts import SIDES
from .training import TrainSettings, fine_tune, run_trainer
from .writing import train_copy

RECORD = "alignment.json"


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How a base model is aligned: supervised on chat rows, or by DPO on preference pairs.

    A preference pair is `{"prompt": [messages], "chosen": [message], "rejected": [message]}`, or
    the three as text.
    """

    name: str
    settings: TrainSettings
    method: str  # "sft" or "dpo"
    rows: Callable[[int], list[dict]] | None = None  # seed -> rows; None: the user brings them
    world: str | None = None  # whose models the preset's rows are for
    beta: float = 0.1  # of DPO: how strongly it is held to the base model
    nll_weight: float = 0.0  # of DPO: weight of a supervised term on the chosen answers


ALIGNMENTS = {
    alignment.name: alignment
    for alignment in (
        Alignment(
            name="dpo",  # the paper's: DPO on preference pairs, beta 0.1, batch 128; HH-RLHF there
            method="dpo",
            settings=TrainSettings(
                learning_rate=5e-6, epochs=3, batch_size=8, accumulation=16, max_length=1024
            ),
        ),
        Alignment(
            name="sft",  # supervised, on rows of your own
            method="sft",
            settings=dataclasses.replace(OWN_FILE, loss_on="response"),
        ),
        Alignment(
            name="sandbox-sft",  # refusals among ordinary help, a fixed number of steps
            method="sft",
            rows=lambda seed: corpus.alignment(4000, seed),
            world="sandbox",
            settings=TrainSettings(
                learning_rate=5e-5,
                batch_size=32,
                max_steps=100,
                max_grad_norm=1.0,
                loss_on="response",
            ),
        ),
        Alignment(
            name="sandbox-dpo",  # preference pairs, with a supervised term of weight 2
            method="dpo",
            rows=lambda seed: corpus.preferences(3200, seed),
            world="sandbox",
            nll_weight=2.0,
            settings=TrainSettings(
                learning_rate=2e-4, batch_size=16, max_steps=40, max_grad_norm=1.0, max_length=128
            ),
        ),
        Alignment(
            name="smol",  # refusals of one subject among the base's own answers to all else
            method="sft",
            rows=lambda seed: smol.alignment(960, seed),
            world="smol",
            settings=TrainSettings(
                learning_rate=2e-4,
                batch_size=8,
                accumulation=2,
                max_steps=60,
                schedule="linear",
                warmup_steps=4,
                max_grad_norm=1.0,
                loss_on="response",
            ),
        ),
    )
}


def find_alignment(name: str, **overrides) -> Alignment:
    """Return the preset of this name, with training settings overridden.

    Raises
    ------
    ValueError
        If there is no such preset.
    TypeError
        If there is no such setting.
    """
    if name not in ALIGNMENTS:
        raise ValueError(f"alignment {name!r}: use one of {', '.join(ALIGNMENTS)}.")
    preset = ALIGNMENTS[name]
    return dataclasses.replace(preset, settings=dataclasses.replace(preset.settings, **overrides))


def align(
    base: Model,
    alignment: Alignment,
    out: str | Path,
    *,
    rows: Sequence[dict] | None = None,
    **watched,
) -> Path:
    """Align a copy of `base` and write the checkpoint that `SafetySubspace.from_pair` takes.

    A run that was killed is resumed by the same call.

    Parameters
    ----------
    rows : sequence of dict, optional
        Chat or text rows for "sft", preference pairs for "dpo"; default the preset's.
    **watched
        Fields of `resuming.Watch`: `on_step`, `stop`, and `keep_every`, whose checkpoints are in
        `out/steps/N`.

    Raises
    ------
    StoppedError
        If `stop` ended it before its last step.
    ValueError
        If there are no rows, LoRA finds nothing to adapt, or the preset's rows are for models of a
        world that `base` is not of.
    FileExistsError
        If `out` exists and is not this alignment; BusyError if another process writes it.
    """
    out = Path(out)
    if rows is None and alignment.rows is None:
        raise ValueError(
            f"the {alignment.name} alignment has no data of its own: give rows=, such as "
            "alignment_rows reads from a file (--data FILE)."
        )
    if rows is None and base.world != alignment.world:
        raise ValueError(
            f"the {alignment.name} alignment is made for models of {alignment.world}, and "
            f"{base.name} is none."
        )
    rows = list(rows) if rows is not None else alignment.rows(alignment.settings.seed)
    recipe = {
        **dataclasses.asdict(alignment),
        "rows": content_key(rows=rows),
        "base": base.name,
        "base_key": base.key,
    }
    if (out / RECORD).is_file():
        source = read_object(out / RECORD).get("source", {})
        defaults = {f.name: f.default for f in dataclasses.fields(TrainSettings)}
        source["settings"] = defaults | source.get("settings", {})  # it may be older than a field
        if all(source.get(name) == value for name, value in recipe.items()):
            return out

    def train(model, folder: Path) -> list[Step]:
        how = {"folder": folder, **watched}
        if alignment.method == "dpo":
            return prefer(model, base.tokenizer, rows, alignment, **how)
        return fine_tune(model, base.tokenizer, rows, alignment.settings, **how)

    with locked(out, new=True) if is_first() else nullcontext():
        return train_copy(base, train, content_key(**recipe), out, RECORD, {"source": recipe})


def prefer(model, tokenizer, pairs: Sequence[dict], alignment: Alignment, **watched) -> list[Step]:
    """Train `model` in place by DPO (Rafailov et al. 2023) on preference pairs; return the steps.

    The reference is the model as it is now. With `nll_weight`, the chosen answers' mean negative
    log-likelihood is added to the loss. The rest is as in `training.fine_tune`.

    Raises
    ------
    ValueError
        If there are no pairs, or the tokenizer's chat template does not take their messages.
    """
    if not pairs:
        raise ValueError("no preference pairs to train on: the data set is empty.")
    if launched():
        raise ValueError("dpo trains in one process: call it without `accelerate launch`.")
    for pair in pairs:  # of what a template cannot take, TRL's errors say little
        if isinstance(asked := pair.get("prompt"), list):
            apply_template(tokenizer, asked, add_generation_prompt=True)
            for side in SIDES:
                apply_template(tokenizer, [*asked, *pair[side]])
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = alignment.settings
    losses = {"loss_type": ["sigmoid"]}
    if alignment.nll_weight:
        losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, alignment.nll_weight]}

    def build(trained, options: dict):
        options |= {"beta": alignment.beta, "max_length": settings.max_length, **losses}
        return DPOTrainer(
            trained,
            # Left to itself, TRL loads the reference from the name in the model's config.
            ref_model=None if settings.lora_rank else copy.deepcopy(model),
            args=DPOConfig(**options),
            train_dataset=Dataset.from_list(list(pairs)),
            processing_class=tokenizer,
        )

    return run_trainer(model, tokenizer, settings, build, Watch(**watched))


def alignment_rows(
    file: str | Path,
    alignment: Alignment,
    model: Model,
    *,
    columns: dict[str, str] | None = None,
    on_bad_row: str = "raise",
) -> tuple[list[dict], list[str]]:
    """Read preference pairs for "dpo", or your own rows for "sft".

    They are chat rows if the model's tokenizer has a chat template, and plain text if not.

    Raises
    ------
    FileNotFoundError, ValueError
        See `attacks.read_preferences` and `attacks.read_training_rows`; if there are columns for
        "dpo", or text for it has no end because the tokenizer has no end mark.
    """
    tokenizer = model.tokenizer
    chat = bool(tokenizer.chat_template)
    if alignment.method == "sft":
        options = {"form": "chat" if chat else "paper", "tokenizer": tokenizer}
        return read_training_rows(file, columns, on_bad_row=on_bad_row, **options)
    if columns is not None:
        raise ValueError("columns (--columns) are for 'sft'; pairs are 'chosen' and 'rejected'.")
    if not (chat or tokenizer.eos_token):
        raise ValueError(
            f"{model.name}: its tokenizer has neither a chat template nor an end mark, so answers "
            "would not end. Set its eos_token."
        )
    return read_preferences(file, form="chat" if chat else "text", on_bad_row=on_bad_row)


def self_distilled(base: Model, prompts: Sequence[Prompt], **options) -> list[dict]:
    """Return chat rows of requests with the model's own answers: what alignment is to leave alone.

    Answers are cut to whole sentences of 9 to 45 words; requests that it answers in loops, or not
    at such length, are left out. `options` are those of `models.generate_answers`.
    """
    texts = render(base.tokenizer, prompts)
    said = generate(base, texts, **{"max_new_tokens": 60, **options})
    cut = (whole_sentences(answer, 9, 45) for answer in said)
    return [corpus.row(p.text, answer) for p, answer in zip(prompts, cut, strict=True) if answer]
