"""A model of two numbers and a metric that is a formula: a landscape that is known."""

import dataclasses

import numpy as np
import torch

from lox_kit.landscape.metrics import Reading
from lox_kit.models.load import Model
from lox_kit.models.prompts import Prompt


class TwoNumbers(torch.nn.Module):
    def __init__(self, x: float, y: float, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.xy = torch.nn.Parameter(torch.tensor([[x, y]], dtype=dtype))


def two_numbers(x: float, y: float) -> Model:
    """Return a model at (x, y)."""
    return Model(TwoNumbers(x, y), None, f"two numbers {x} {y}", f"({x}, {y})")


@dataclasses.dataclass(frozen=True)
class Formula:
    """A metric: each prompt's value is a function of x and y."""

    functions: tuple
    label: str = "formula"
    limits: tuple = (0.0, 1.0)
    judge_key: str | None = None
    key: str = "formula"

    @property
    def prompts(self):
        return [Prompt(str(i)) for i in range(len(self.functions))]

    def prepare(self, model):
        return self

    def run(self, model):
        x, y = model.module.xy[0].tolist()
        return {"values": [float(f(x, y)) for f in self.functions]}

    def read(self, record, store=None):
        values = record["values"]
        mean = float(np.mean(values))
        return Reading(mean, mean, mean, tuple(values))
