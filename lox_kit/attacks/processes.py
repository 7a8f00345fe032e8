"""One run of several processes, which `accelerate launch` starts: as if one had trained.

Each has its part of every batch and, with FSDP, of the weights. The first has the whole model
beside, and alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from lox_kit.threads import is_first, launched

from .tokens import IGNORED


def refuse_launch(trainer) -> None:
    """Raise ValueError if weights are spread in a way from which they are not gathered here."""
    fsdp = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    known = not fsdp or (trainer.accelerator.is_fsdp2 and "FULL" in str(fsdp.state_dict_type))
    if trainer.is_deepspeed_enabled or not known:
        raise ValueError(
            "processes train together with distributed_type: FSDP, fsdp_version: 2 and "
            "fsdp_state_dict_type: FULL_STATE_DICT, or MULTI_GPU; change accelerate's config."
        )


def gather(trainer, model) -> None:
    """Copy the weights in training, of all processes, into the first one's whole model."""
    if launched():
        state = trainer.accelerator.get_state_dict(trainer.model)
        if is_first():
            model.load_state_dict(state)


def share_rows(trainer) -> None:
    """Have processes take the rows that one would take, each its part of every batch.

    Left to itself accelerate fills the last batch of an epoch with rows of the first one, and in an
    epoch that is resumed takes the rows in the order of epoch 0.
    """
    rows, batch_size = len(trainer.train_dataset), trainer.args.per_device_train_batch_size
    if launched():
        if rows % batch_size:
            empty = {"input_ids": [0], "labels": [IGNORED]}
            trainer.train_dataset = trainer.train_dataset.add_item(empty)
        trainer._get_train_sampler = lambda *_: _WholeBatches(trainer, rows, batch_size)


class _WholeBatches(Sampler):
    """Rows in the order of one process, then the one after them until the last batch is whole."""

    def __init__(self, trainer, rows: int, batch_size: int):
        from accelerate.data_loader import SeedableRandomSampler

        self.order = SeedableRandomSampler(range(rows), data_seed=trainer.args.data_seed)
        self.trainer, self.missing = trainer, -rows % batch_size

    def __len__(self) -> int:
        return len(self.order) + self.missing

    def __iter__(self) -> Iterator[int]:
        self.order.set_epoch(int(self.trainer.state.epoch or 0))
        yield from self.order
        yield from [len(self.order)] * self.missing
