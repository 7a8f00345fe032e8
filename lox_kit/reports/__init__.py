"""The figures, table and caption of a study, written as files."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "landscape": "DIFFERENCE numbers report",
        "paper": "FIGURES paper_figures run_demo",
        "research": """
            choice_text controls_text holm knowing_text overlaps_text sweep_text write_choice
            write_controls write_knowing write_overlaps write_sweep
        """,
        "table": "frontier_text latex_table print_table table_caption write_frontier write_table",
    },
)
