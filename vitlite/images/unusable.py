"""The reason why a file cannot be used, on its way to the error that names the file."""


class Unusable(ValueError):
    """A readable file whose content cannot be used; the message is the reason, without the file's name."""
