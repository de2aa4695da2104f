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
        super().__init__(MARK.sub(_unmarked, self.marked))


def _unmarked(found: re.Match[str]) -> str:
    return found[0][1:-1]
