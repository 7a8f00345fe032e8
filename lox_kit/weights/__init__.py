"""Checkpoints on disk: known by name, read one tensor at a time, compared, and written whole."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "adapter": "LoraAdapter",
        "architecture": """
            class_and_config find_places Piece Place quiet_transformers refuse_code saved_places
            shape_of skeleton tied_parameters transformers_for values_of
        """,
        "checkpoint": "Checkpoint",
        "files": """
            file_hash has_weights INDEX is_embedding is_head read_made read_object
            refuse_nonfinite SINGLE
        """,
        "names": "family_folder hub_ids member RECIPE",
        "pair": "check_pair delta PairReport ROWS",
        "quantised": "WRITTEN",
        "sums": "check_schema checked_reader",
        "targets": "can_adapt is_conv1d lora_parameters lora_share lora_targets",
        "writer": "write_tensors",
    },
)
