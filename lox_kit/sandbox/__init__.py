"""The potion school: a made-up world and what is said in it, as words and rows. No torch."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "corpus": "",
        "world": "",
    },
)
