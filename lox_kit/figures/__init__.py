"""Paper figures with matplotlib: plain data in, figure out. `plotly` has them for the screen."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "attacks": """
            figure_attack_lab figure_attack_table figure_epochs is_there LAB_ARMS run_title
        """,
        "canvas": "LINES MEASURE_STYLES OKABE_ITO STYLE use WIDTHS",
        "defences": """
            curve_points direction_of figure_alpha figure_defences figure_frontier SHORT
        """,
        "erosion": "figure_overlaps figure_r_bars figure_retained",
        "files": "DRAW draw holds made_now redraw save_figure",
        "judging": "figure_interval figure_judges interval_data judges_data",
        "numbers": "frame",
        "landscape": "figure_flatness figure_landscape_3d figure_landscape_map map_data",
        "together": "overlay",
        "pipeline": "figure_pipeline",
        "plotly": "",
        "published": "PUBLISHED",
        "rank": "attack_style figure_rank_and_r figure_rank_curve",
        "rank_data": "ALL in_layers kinds_shown rank_and_r_data",
        "spectrum": "figure_energy_map figure_explorer figure_spectrum",
        "sweep": "figure_choice figure_sweep grid_shares",
    },
)
