"""The spectrum explorer's state: a matrix, a view and k, and the figure data that follow."""

from __future__ import annotations

import traitlets

from lox_kit.extrapolation import VIEWS, SafetySubspace, explorer_data, first_cell, spectrum_data
from lox_kit.widgets.code import pair_call, script
from lox_kit.widgets.setting import PanelState, Setting, one_of, with_warnings


class SpectrumState(PanelState):
    """Which matrices are looked at, at which k.

    Attributes
    ----------
    selected : str
        A matrix of the subspace, by its full name.
    view : one of `extrapolation.VIEWS`
    data : dict
        What `figures.plotly.explorer_spec` and `figures.figure_explorer` are drawn from.
    note : str
        What is to be said about k: whether its directions are certified.
    """

    follows = ("k",)
    selected = traitlets.Unicode()
    view = traitlets.Enum(VIEWS, "all")
    _check_selected = one_of("selected", "names")

    def __init__(self, subspace: SafetySubspace, setting: Setting | None = None):
        self.subspace = subspace
        self.names = list(subspace)
        self._spectrum = spectrum_data(subspace)  # does not depend on k
        super().__init__(setting or Setting(subspace), selected=first_cell(self.names))
        self.open()

    def compute(self) -> dict:
        """Return what is on screen, and note what is to be said about it."""
        at = self.setting.k, self.selected, self.view
        data, self.note = with_warnings(explorer_data, self.subspace, *at, spectrum=self._spectrum)
        return data

    @property
    def figure_name(self) -> str:
        """What a figure of this is called."""
        words = self.selected.removesuffix(".weight").removeprefix("model.")
        part = self.view if self.view == "all" else f"{self.view}-{words}"
        return f"explorer-{part}-k{self.setting.k}"

    def code(self) -> str:
        """Return the calls that make what is on screen."""
        return script(f"""subspace = {pair_call(self.subspace.info)}
data = explorer_data(
    subspace,
    k={self.setting.k},
    selected={self.selected!r},
    view={self.view!r},
)
figures.save_figure(data, {self.figure_name!r})
""")
