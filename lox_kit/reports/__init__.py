"""The figures, table and caption of a study, written as files."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "controls": "controls_text holm write_controls",
        "frontier": "frontier_text write_frontier",
        "knowing": "knowing_text write_knowing",
        "landscape": "DIFFERENCE numbers report",
        "paper": "FIGURES paper_figures run_demo",
        "overlaps": "overlaps_text write_overlaps",
        "sweep": "choice_text sweep_text write_choice write_sweep",
        "table": "latex_table print_table table_caption write_table",
    },
)
