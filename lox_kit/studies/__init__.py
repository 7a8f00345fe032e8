"""Whole experiments, from a pair of checkpoints or a seed of the sandbox to a table of numbers."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "arms": "Arm arm_model ARMS TABLE_ARMS",
        "choice": "Choice choose NONE PAPER report_choice",
        "curves": """alpha_curve ask epoch_curve measure_shares plan_route read_way Route
            spread_steps Way""",
        "families": "build build_longer build_smol pair_of",
        "knowing": "knowing_attackers tune",
        "landscape": """
            ALONG attack_both BACK KEEP_EVERY LANDSCAPE_TOKENS load_family Picture picture WALKS
            walks
        """,
        "rank": "rank_curve RANKS world_rank_curve stored_rank_curve",
        "results": "AttackTable MARGIN pooled RankCurve",
        "sweeping": "ALPHAS coarse_to_fine DEVELOPMENT KS setting sweep",
        "table": "attack_table compare_defences COST frontier_arms LONGER ON_BOTH smol_frontier",
        "treatments": "guess_step keep_out treated TREATMENTS TUNED",
        "overlaps": "AMOUNTS Erosion erosion Overlaps safety_overlaps",
    },
)
