"""The real small model, SmolLM2-135M-Instruct: where it comes from. No torch."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(__name__, {"source": "fetch_gguf HUB_ID"})
