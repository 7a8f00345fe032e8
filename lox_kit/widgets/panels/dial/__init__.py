"""The LoX dial."""
