"""The course: checks of its exercises, its notebooks, and what is recorded for them."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "lessons": "check delivered exercises hint passed recorded solution status TEACHER",
    },
)
