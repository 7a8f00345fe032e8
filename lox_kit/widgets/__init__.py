"""Panels for JupyterLab: each answers one question and opens with one line.

from lox_kit import widgets

setting = widgets.Setting(subspace)               # shared, so that the panels move together
widgets.spectrum(subspace, setting=setting)
widgets.dial(subspace, model, setting=setting)
widgets.landscape(plane, other_model, setting=setting)
widgets.attack_lab(subspace, third_model, store=store, setting=setting)
widgets.rank(subspace, attacked={"arithmetic": run}, setting=setting)

Two of them travel: a page that opens anywhere, with no kernel and no network.

widgets.dial(subspace, model).export("dial.html")
widgets.landscape(plane, other_model).export("landscape.html")
"""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "panels.spectrum.panel": "spectrum",
        "panels.spectrum.state": "SpectrumState",
        "panels.dial.panel": "dial",
        "panels.dial.state": "DialState",
        "panels.landscape.panel": "landscape",
        "panels.landscape.state": "LandscapeState",
        "panels.attack_lab.panel": "attack_lab",
        "panels.attack_lab.state": "AttackLabState",
        "panels.rank.panel": "rank",
        "panels.rank.state": "RankState",
        "job": "Job",
        "setting": "PanelState Setting",
        "shell": "Panel",
    },
)
