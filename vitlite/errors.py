"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Wrong use or bad input, in one line that names the file or option and the mend.

    The command line prints the line and exits with code 2; library callers may catch it like any exception.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))
