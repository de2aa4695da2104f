"""Where the tests that are meant for a GPU run: there, or as a rehearsal on the processor.

In a rehearsal (see rehearsal.py) they run on CPU tensors in Triton's interpreter, so that what such a
test asks, and the tolerances that it sets, are known to be right before there is a GPU. ``only_on_a_gpu`` marks what
the processor has no counterpart of: streams, graphs, several devices.
"""

import pytest
import torch
from rehearsal import REHEARSAL

DEVICE = torch.device("cpu" if REHEARSAL else "cuda")
NO_DEVICE = not REHEARSAL and not torch.cuda.is_available()

marks = [] if REHEARSAL else [pytest.mark.gpu, pytest.mark.skipif(NO_DEVICE, reason="no CUDA device")]
only_on_a_gpu = pytest.mark.skipif(REHEARSAL, reason="the processor has no counterpart of this")


def sized(on_a_gpu, rehearsed):
    """The interpreter takes minutes for what a GPU does in no time."""
    return rehearsed if REHEARSAL else on_a_gpu
