"""``--deterministic``: the same numbers from every run on a machine, or a refusal."""

import contextlib
import os

from vitlite.errors import UserError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it when torch first uses it in a process


@contextlib.contextmanager
def deterministic(wanted=True):
    """Within it an operator whose result may differ from run to run raises ``UserError`` that names it.

    On the CPU all of vitlite gives the same numbers without it; it is for GPUs, where some of torch's operators add up
    in the order in which threads finish, and for methods of one's own. torch's settings are restored afterwards.
    Without ``wanted`` nothing happens, and torch is not imported.
    """
    if not wanted:
        yield
        return
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tuning, workspace = torch.backends.cudnn.benchmark, os.environ.get(CUBLAS)
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "eterministic" not in str(error):
            raise
        raise UserError(f"--deterministic: {complaint(error)}; leave it out, or use --device cpu") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = tuning
        if workspace is None:
            os.environ.pop(CUBLAS, None)


def complaint(error):
    """What torch says of the operator, without its advice to programmers."""
    return str(error).strip().splitlines()[0].split(", but you set")[0].split(". You can")[0][:200]
