"""LoX itself: the safety subspace of a pair, and the edit as dial, checkpoint and adapter."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "adapter": "save_adapter",
        "checkpoint": "apply_lox extrapolate",
        "controls": """
            bottom_subspace CONTROL_NAMES control_of control_rank CONTROLS full_delta is_control
            middle_band random_subspace shuffled_layers some_matrices
        """,
        "file": "FULL",
        "lox": "check_alpha ResidentWeights LowRank lox_key LoxDial Part recipe_of rows_of Terms",
        "neighbours": "safe_lora",
        "overlaps": "overlap",
        "places": "kinds_of map_layout module_of ORDER place_of",
        "ranks": "k_of_energy rank_rules RULES",
        "spectrum": """
            energy_map_data explorer_data first_cell kind_summary largest_k spectrum_data VIEWS
        """,
        "subspace": "SafetySubspace UncertifiedRank",
        "svd": "Factors noise_edge top_factors",
        "vocabulary": "direction_tokens",
    },
)
