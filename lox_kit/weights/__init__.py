"""Checkpoints on disk: known by name, read one tensor at a time, compared, and written whole."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "adapter": "LoraAdapter TRANSPOSED",
        "checkpoint": "Checkpoint",
        "files": """
            file_hash has_weights INDEX is_embedding is_head read_made read_object
            refuse_nonfinite SINGLE
        """,
        "names": "family_folder member RECIPE",
        "pair": "check_pair delta PairReport ROWS",
        "sums": "check_schema checked_reader",
        "writer": "write_tensors",
    },
)
