"""One process trains into a run's folder at a time: two would mix their logs and checkpoints."""

import os

from vitlite.errors import UserError
from vitlite.files import make_folder

try:
    import fcntl
except ImportError:  # not a Unix: nothing notices the other process there
    fcntl = None


class Claim:
    """A context manager; from ``take`` to its end the folder is this process's to train in.

    The system drops the claim with the process, however that ends, and nothing of it is left in the folder.
    """

    def __init__(self, run):
        self.run, self.handle = run, None

    def take(self):
        """Make the folder and claim it, once. ``UserError`` where another process has it or it cannot be made."""
        make_folder(self.run)
        if self.handle is not None or fcntl is None:
            return
        try:
            self.handle = os.open(self.run, os.O_RDONLY)
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.run}: another process is training there; wait for its end, or choose another --out"
            ) from None
        except OSError:  # a file system without locks, or a folder that cannot be read: nobody is refused there
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None
