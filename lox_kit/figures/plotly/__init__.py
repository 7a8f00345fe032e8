"""The same figures with plotly, to hover over and to turn: plain data in, a figure out."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "canvas": "Spec",
        "curves": "alpha_spec lab_spec rank_spec",
        "spectrum": "explorer_spec",
        "surface": "MAP shown_value SURFACE",
        "viewer": "landscape viewer_spec",
    },
)
