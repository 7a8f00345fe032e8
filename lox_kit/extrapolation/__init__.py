"""LoX itself: the safety subspace of a pair, and the edit as dial, checkpoint and adapter."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "adapter": "save_adapter",
        "checkpoint": "apply_lox extrapolate",
        "controls": "bottom_subspace CONTROLS full_delta random_subspace",
        "file": "FULL",
        "lox": "check_alpha ResidentWeights LowRank lox_key LoxDial Part recipe_of rows_of Terms",
        "neighbours": "safe_lora",
        "places": "kinds_of map_layout module_of ORDER place_of",
        "spectrum": """
            energy_map_data explorer_data first_cell kind_summary largest_k spectrum_data VIEWS
        """,
        "subspace": "SafetySubspace UncertifiedRank",
        "svd": "Factors noise_edge top_factors",
        "vocabulary": "direction_tokens",
    },
)
