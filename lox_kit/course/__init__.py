"""The course: what checks its exercises, and where its notebooks and recorded results are.

from lox_kit import course

course.check("3.1", project)  # what holds of your answer, what does not, and where to look
course.hint("3.1")
course.status()               # a table of what is done; .to_csv(file) keeps it
"""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "checking": "check exercises hint passed status",
        "delivery": "delivered recorded solution TEACHER",
    },
)
