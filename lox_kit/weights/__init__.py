"""Checkpoints on disk: known by name, read one tensor at a time, compared, and written whole."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "adapter": "LoraAdapter",
        "architecture": """
            find_places is_beside is_embedding is_head Piece Place same_tensors
            saved_places shape_of tied_parameters values_of
        """,
        "checkpoint": "Checkpoint",
        "files": """
            file_hash has_weights INDEX read_made read_object refuse_nonfinite SINGLE
        """,
        "library": """
            class_and_config quiet_transformers refuse_code skeleton transformers_for
        """,
        "names": "family_folder find hub_ids member RECIPE SMOL_RECIPE smol_folder with_seed WORLD",
        "pair": "both check_pair delta matching PairReport ROWS",
        "quantised": "plain_config",
        "smol": "convert_gguf fetch_base",
        "sums": "check_schema check_sums checked_reader",
        "targets": """
            can_adapt load_adapter lora_layers lora_names lora_parameters lora_share lora_targets
            lora_transposes
        """,
        "worlds": "is_own own_world",
        "writer": "copy_beside Layout write_tensors",
    },
)
