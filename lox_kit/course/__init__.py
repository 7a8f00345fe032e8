"""The course: checks of its exercises, its notebooks, and what is recorded for them."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "checking": "check exercises hint passed status",
        "delivery": "delivered recorded solution TEACHER",
    },
)
