"""Figure 1 of the paper: what LoX does, as boxes and a formula."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import OKABE_ITO, em, one_panel, page, small, styled

STEPS = (
    ("base", "W_base"),
    ("aligned", "W_aligned"),
    ("what alignment changed", "W_aligned − W_base = U S Vᵀ"),
    ("its low-rank core", "Uₖ Sₖ Vₖᵀ, k = {k}"),
    ("LoX", "W_aligned + α Uₖ Sₖ Vₖᵀ, α = {alpha:g}"),
    ("fine-tuned by anyone", "does it still refuse?"),
)


@styled
def figure_pipeline(data: dict) -> Figure:
    """Draw the steps from a base model to one that is attacked; `data` has k and alpha."""
    width = page(7.0) / em()
    across = 3 if width >= 6 else 2 if width >= 5 else 1
    rows = -(-len(STEPS) // across)
    fig, ax = one_panel(0.2 + 0.62 * rows, 7.0)
    for i, (head, text) in enumerate(STEPS):
        row, column = divmod(i, across)
        _box(ax, column, -row, head, text.format(**data), OKABE_ITO[0] if head == "LoX" else "0.3")
        if i + 1 < len(STEPS):
            below, beside = divmod(i + 1, across)
            _arrow(ax, (column, -row), (beside, -below))
    ax.set(xlim=(-0.5, across - 0.5), ylim=(0.5 - rows, 0.5))
    ax.axis("off")
    return fig


def _box(ax: Axes, x: float, y: float, head: str, text: str, colour: str) -> None:
    """Draw one step: its name in bold, and its formula."""
    ax.add_patch(plt.Rectangle((x - 0.43, y - 0.33), 0.86, 0.66, fill=False, edgecolor=colour))
    ax.text(x, y + 0.15, head, ha="center", va="center", weight="bold", fontsize=small())
    ax.text(x, y - 0.15, text, ha="center", va="center", fontsize=small(), color=colour)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow from one step to the next, in the same row or the one below."""
    (x, y), (to_x, to_y) = start, end
    along, down = ((to_x - 0.44, to_y), (x + 0.44, y)), ((to_x, to_y + 0.34), (x, y - 0.34))
    style = {"arrowstyle": "-|>", "color": "0.3", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", *(along if y == to_y else down), arrowprops=style)
