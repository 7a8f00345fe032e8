"""The real small model, SmolLM2-135M-Instruct, and its rule: nothing about dragons. No torch."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "rows": "",
        "source": "fetch_gguf HUB_ID",
        "subject": "",
    },
)
