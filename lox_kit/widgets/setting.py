"""What panels have in common: where the dial stands, and how they look."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from weakref import WeakValueDictionary

import ipywidgets
import traitlets

from lox_kit.extrapolation import SafetySubspace, largest_k
from lox_kit.models import Model

STEP = 0.25  # of alpha
BREATH = 0.3  # seconds between pictures of a run: drawing takes time from it


class Look(traitlets.HasTraits):
    """What every panel has of a setting.

    Attributes
    ----------
    classroom : bool
        Larger type, and answers hidden.
    """

    classroom = traitlets.Bool(False)


class Setting(Look):
    """k, alpha and class use: panels that are given the same setting move together.

    Attributes
    ----------
    k : int
        Directions, 0 to `most_k`.
    alpha : float
        Extrapolation factor, 0 to `most_alpha`, on top of the aligned model.
    """

    k = traitlets.Int()
    alpha = traitlets.Float(1.0)

    def __init__(self, subspace: SafetySubspace, *, most_alpha: float = 4.0, **traits):
        self.most_k = largest_k(subspace)
        self.most_alpha = most_alpha
        self._start = {"k": min(6, self.most_k), "alpha": 1.0} | traits
        super().__init__(**self._start)

    @traitlets.validate("k")
    def _check_k(self, proposal) -> int:
        if not 0 <= proposal["value"] <= self.most_k:
            raise traitlets.TraitError(f"k={proposal['value']}: use 0 to {self.most_k}.")
        return proposal["value"]

    @traitlets.validate("alpha")
    def _check_alpha(self, proposal) -> float:
        if not 0 <= proposal["value"] <= self.most_alpha:
            raise traitlets.TraitError(f"alpha={proposal['value']}: use 0 to {self.most_alpha:g}.")
        return proposal["value"]

    def reset(self) -> None:
        """Go back to where it started; class use stays as it is."""
        self.k, self.alpha = self._start["k"], self._start["alpha"]


_open: WeakValueDictionary[tuple[type, int], PanelState] = WeakValueDictionary()  # by id(model)


class PanelState(traitlets.HasTraits):
    """What a panel shows, until it is closed: then nothing that outlives it knows of it.

    It has a `setting`, perhaps shared with others, and perhaps a `job`.
    """

    ends = traitlets.Instance(ExitStack, ())  # what is to be done when it closes
    _shown = 0.0  # when its last picture was drawn

    def take(self, model: Model) -> None:
        """Close what is open on this model, such as that of a cell that is run again."""
        place = type(self), id(model)
        if earlier := _open.get(place):
            earlier.close()
        _open[place] = self
        self.ends.callback(_open.pop, place, None)

    def follow(self, function: Callable, names: str | list[str]) -> None:
        """Call this whenever one of these traits of the setting changes."""
        self.setting.observe(function, names)
        self.ends.callback(self.setting.unobserve, function, names)

    def link(self, widgets: dict[str, ipywidgets.Widget]) -> None:
        """Let widgets and the traits of the setting that they stand for move together."""
        for name, widget in widgets.items():
            both = ipywidgets.link((self.setting, name), (widget, "value"))
            self.ends.callback(both.unlink)

    def _show_some(self) -> None:
        """Show what has come, if the last picture is a while ago."""
        if self.job.status != "running" or time.monotonic() - self._shown > BREATH:
            self._show()

    def close(self) -> None:
        """End the job at its next step, and close the panels of this state."""
        if job := getattr(self, "job", None):
            job.close()
            job.wait()
        self.ends.close()
        self.unobserve_all()


def check_aligned(subspace: SafetySubspace, model: Model) -> None:
    """Raise ValueError if the model's weights are not those the subspace was made from."""
    if model.key != subspace.info["aligned_fingerprint"]:
        raise ValueError(
            f"{model.name} does not have the weights of {subspace.info['aligned']}, which this "
            "subspace was made from (or a dial on it is turned: dial.off()). Load it anew: "
            f"load_model({str(subspace.info['aligned'])!r})."
        )
