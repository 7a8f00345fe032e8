"""The spectrum explorer."""
