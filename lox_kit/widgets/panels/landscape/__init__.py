"""The landscape viewer."""
