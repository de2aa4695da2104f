"""The exceptions that stand for a user's mistake."""

import re

# An argument in a message: a name, or a name with its value, in backticks. A command in backticks holds a space.
MARK = re.compile(r"`([A-Za-z_]\w*)(?:=([^`]*))?`")


class UserError(Exception):
    """Wrong use or bad input: one line that names the file, or the argument, and says what to do.

    The message writes an argument or a setting in backticks, with its value or alone::

        UserError(f"`lr={lr}`: must be above 0")
        UserError(f"{run}: already holds a run; use `resume=True`, or choose another `out`")

    ``str(error)`` is the message without these backticks, for callers from Python. ``error.marked`` keeps them: the
    command line writes each argument as its own option, and exits with code 2.
    """

    def __init__(self, message: object) -> None:
        self.marked = " ".join(str(message).split())
        super().__init__(MARK.sub(lambda found: found[0][1:-1], self.marked))


def first_line(error: Exception, most: int = 160) -> str:
    """The first line of an error's message, of at most so many letters; what kind of error it is if it says nothing."""
    return "".join(str(error).strip().splitlines()[:1])[:most] or type(error).__name__
