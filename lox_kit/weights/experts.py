"""A LoRA adapter of experts, or other parameters that are no linear layers, as PEFT reads it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .adapter import MERGE, LoraAdapter
from .architecture import find_places
from .files import read_object
from .hub import ADAPTER_CONFIG
from .library import skeleton
from .targets import load_adapter, lora_factors, lora_layers


def open_adapter(folder: Path, base) -> LoraAdapter:
    """Return the adapter in a folder; `base` is the `Checkpoint` that it is an adapter of."""
    stacked = read_object(folder / ADAPTER_CONFIG).get("target_parameters")
    return (ParameterAdapter if stacked else LoraAdapter)(folder, base)


class ParameterAdapter(LoraAdapter):
    """An adapter with `target_parameters`: its factors are those that PEFT puts into the model.

    Raises
    ------
    ValueError
        Also if PEFT does not take up all of it, or it changes what the base does not have.
    ImportError
        Without PEFT.
    """

    def _open(self) -> frozenset[str]:
        """Read what PEFT reads, and return the tensors of the base that it changes."""
        if self._config.get("modules_to_save"):
            raise ValueError(
                f"{self.folder}: modules_to_save beside target_parameters is not read. {MERGE}"
            )
        model = skeleton(self.base.path)
        shapes = {name: W.shape for name, W in model.state_dict().items()}
        layers = lora_layers(load_adapter(self.folder, model)).items()
        held = {parameter: lora_factors(layer) for parameter, layer in layers}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}  # by matrix of the base
        self._inside: dict[str, list[str]] = {}  # the matrices in each of its tensors
        found = set()
        for name, place in find_places(self.base.skeleton, self.base.parts).items():
            piece, *others = place
            if others or piece.parameter not in held:
                continue
            matrix, rows, transposed = piece.within(shapes[piece.parameter])
            left, right = held[piece.parameter][matrix]
            one, other = (right.T, left[rows].T) if transposed else (left[rows], right)
            self._factors[name] = one, other
            self._inside.setdefault(self.base.parts[name].info.name, []).append(name)
            found.add(piece.parameter)
        if lost := sorted(held.keys() - found):
            raise self._not_there(lost[0])
        return frozenset(self._inside)

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Return left and right of the delta of one of the base's parts, as `LoraAdapter` does."""
        return self._factors.get(name)

    def _add(self, name: str, W: Tensor) -> Tensor:
        """Add the deltas of all parts of a tensor to its values in float32, and return these."""
        for part in self._inside[name]:
            self.base.parts[part].of(W).addmm_(*self._factors[part])
        return W
