"""Checkpoints on disk: known by name, read one tensor at a time, compared, and written whole."""
