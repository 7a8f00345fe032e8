"""The sliders of a setting, the same in every panel that has them."""

from __future__ import annotations

import ipywidgets

from .setting import STEP, Setting


def setting_sliders(setting: Setting, *names: str) -> dict[str, ipywidgets.Widget]:
    """Return the sliders of these traits of a setting, "k" or "alpha", not linked with it yet."""
    make = {"k": _k, "alpha": _alpha}
    return {name: make[name](setting).add_class(f"lox-{name}") for name in names}


def _k(setting: Setting) -> ipywidgets.Widget:
    return ipywidgets.IntSlider(setting.k, 0, setting.most_k, description="k")


def _alpha(setting: Setting) -> ipywidgets.Widget:
    return ipywidgets.FloatSlider(
        setting.alpha, min=0, max=setting.most_alpha, step=STEP, description="alpha"
    )
