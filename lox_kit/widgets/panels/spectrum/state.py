"""The spectrum explorer's state: a matrix, a view and k, and the figure data that follow."""

from __future__ import annotations

import warnings

import traitlets

from lox_kit.extrapolation import VIEWS, SafetySubspace, explorer_data, first_cell, spectrum_data
from lox_kit.widgets.code import pair_call, script
from lox_kit.widgets.setting import PanelState, Setting


class SpectrumState(PanelState):
    """Which matrices are looked at, at which k.

    Attributes
    ----------
    selected : str
        A matrix of the subspace, by its full name.
    view : one of `extrapolation.VIEWS`
    data : dict
        What `figures.plotly.explorer` and `figures.figure_explorer` are drawn from.
    note : str
        What is to be said about k: whether its directions are certified.
    """

    selected = traitlets.Unicode()
    view = traitlets.Enum(VIEWS, "all")
    data = traitlets.Dict(read_only=True)
    note = traitlets.Unicode(read_only=True)

    def __init__(self, subspace: SafetySubspace, setting: Setting | None = None):
        self.subspace = subspace
        self.setting = setting or Setting(subspace)
        self.names = list(subspace)
        self._spectrum = spectrum_data(subspace)  # does not depend on k
        super().__init__(selected=first_cell(self.names))
        self.observe(self._follow, ["selected", "view"])
        self.follow(self._follow, "k")
        self._follow()

    @traitlets.validate("selected")
    def _check_selected(self, proposal) -> str:
        if proposal["value"] not in self.subspace:
            raise traitlets.TraitError(
                f"{proposal['value']}: not in this subspace ({len(self.names)} matrices)."
            )
        return proposal["value"]

    def _follow(self, change=None) -> None:
        """Work out what is on screen."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data = explorer_data(
                self.subspace,
                self.setting.k,
                self.selected,
                self.view,
                spectrum=self._spectrum,
            )
        self.set_trait("note", " ".join(str(w.message) for w in caught))
        self.set_trait("data", data)

    def reset(self) -> None:
        """Go back to the start."""
        self.setting.reset()
        self.view, self.selected = "all", first_cell(self.names)

    def figure_data(self) -> dict:
        """Return what the figure on screen is drawn from."""
        return self.data

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
figures.plotly.explorer(data).show()
figures.save_figure(data, {self.figure_name!r})
""")
