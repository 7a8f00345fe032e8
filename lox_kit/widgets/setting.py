"""What panels have in common: where the dial stands, how they look, and the state behind each."""

from __future__ import annotations

import textwrap
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from weakref import WeakValueDictionary

import ipywidgets
import traitlets

from lox_kit.extrapolation import SafetySubspace, largest_k
from lox_kit.figures import use
from lox_kit.models import Model

from .job import Job

STEP = 0.25  # of alpha


def within(name: str, most: str) -> traitlets.ValidateHandler:
    """Return a check that a trait is from 0 to what the attribute `most` says then."""

    @traitlets.validate(name)
    def check(self, proposal):
        value, limit = proposal["value"], getattr(self, most)
        if not 0 <= value <= limit:
            raise traitlets.TraitError(f"{name}={value}: use 0 to {limit:g}.")
        return value

    return check


def one_of(name: str, offered: str) -> traitlets.ValidateHandler:
    """Return a check that a trait is among what the attribute `offered` lists then."""

    @traitlets.validate(name)
    def check(self, proposal):
        value, known = proposal["value"], list(getattr(self, offered))
        if value not in known:
            words = textwrap.shorten(", ".join(map(str, known)), 300, placeholder=" ...")
            raise traitlets.TraitError(f"{name}={value!r}: use one of {words}.")
        return value

    return check


class Setting(traitlets.HasTraits):
    """k, alpha and class use: panels that are given the same setting move together.

    Parameters
    ----------
    subspace : SafetySubspace, optional
        Its directions are those that k counts; without one there are none.

    Attributes
    ----------
    classroom : bool
        Larger type, and answers hidden.
    k : int
        Directions, 0 to `most_k`.
    alpha : float
        Extrapolation factor, 0 to `most_alpha`, on top of the aligned model.
    """

    classroom = traitlets.Bool(False)
    k = traitlets.Int()
    alpha = traitlets.Float(1.0)
    most_alpha = 4.0
    _check_k = within("k", "most_k")
    _check_alpha = within("alpha", "most_alpha")

    def __init__(self, subspace: SafetySubspace | None = None, **traits):
        self.most_k = 0 if subspace is None else largest_k(subspace)
        self._start = {"k": min(6, self.most_k), "alpha": 1.0} | traits
        super().__init__(**self._start)

    @traitlets.observe("classroom")
    def _size_figures(self, change) -> None:
        """Draw the notebook's own figures as large as the panels."""
        use("talk" if self.classroom else "paper")

    def reset(self) -> None:
        """Go back to where it started; class use stays as it is."""
        self.k, self.alpha = self._start["k"], self._start["alpha"]


_open: WeakValueDictionary[tuple[type, int], PanelState] = WeakValueDictionary()  # by id(model)


class PanelState(traitlets.HasTraits):
    """What a panel shows, until it is closed: then nothing that outlives it knows of it.

    A kind of panel has a `figure_name`, `compute` for the data on screen and `code` for the calls
    that reproduce it. Once it is open, it shows what follows from every change of a trait that a
    person sets, and of what it `follows`; at `reset` they go back to what they were at `open`.

    Parameters
    ----------
    setting : Setting
        Perhaps shared with other panels.
    job : Job, optional
        Works for this panel; what it has found when its status changes is shown.

    Attributes
    ----------
    data : dict
        What is on screen.
    follows : tuple of str
        Traits of the setting that are chosen here, too.
    lock : threading.RLock
        Held while the state or its panel changes; the job's own, if there is one.
    """

    gaps = ""  # what is said of a figure that is saved before all of it is measured
    follows: tuple[str, ...] = ("k", "alpha")
    data = traitlets.Dict(read_only=True)
    ends = traitlets.Instance(ExitStack, (), read_only=True)  # what is done when it closes
    _opened: Mapping[str, object] = {}  # what was chosen at first

    def __init__(self, setting: Setting, job: Job | None = None, **traits):
        self.setting, self.job = setting, job
        self.lock = job.lock if job else threading.RLock()
        super().__init__(**traits)
        if job:
            job.observe(self.show, "status")

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

    def link(self, name: str, widget: ipywidgets.Widget) -> None:
        """Let a widget and the trait of the setting that it stands for move together."""
        both = ipywidgets.link((self.setting, name), (widget, "value"))
        self.ends.callback(both.unlink)

    def compute(self) -> dict:
        """Return what is to be on screen now, as plain data."""
        return {}

    def figure_data(self) -> dict:
        """Return what the figure that is saved is drawn from."""
        return self.data

    def open(self) -> None:
        """Show what is chosen now, to which `reset` goes back, and what is chosen from now on."""
        chosen = [name for name, trait in self.traits().items() if not trait.read_only]
        self._opened = {name: getattr(self, name) for name in chosen}
        self.observe(self.changed, chosen)
        self.follow(self.changed, list(self.follows))
        self.show()

    def changed(self, change) -> None:
        """Show what follows from a choice."""
        self.show()

    def reset(self) -> None:
        """Go back to the start; what was measured is kept."""
        with self.lock, self.hold_trait_notifications():  # a page's callbacks: several threads
            if self.follows:
                self.setting.reset()
            for name, value in self._opened.items():
                setattr(self, name, value)

    def show(self, change=None) -> None:
        """Put what is known now into `data`."""
        with self.lock:
            self.set_trait("data", self.compute())

    def close(self) -> None:
        """End the job at its next step, and close the panels of this state."""
        if self.job:
            self.job.close()
            self.job.wait()
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


def with_warnings(function: Callable, *arguments, **options) -> tuple[object, str]:
    """Return what a function returns, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = function(*arguments, **options)
    return found, " ".join(str(w.message) for w in caught)
