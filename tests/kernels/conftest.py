"""What the tests of all operators share."""

import pytest
import torch

LEVELS = {"baseline": 0, "avx2": 1, "avx512": 2}


@pytest.fixture(autouse=True)
def poisoned():
    """Fills whatever is allocated but not written with not-a-number, so that a forgotten element shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _one_thread():
    """The tests make many tiny calls; those that are about threads set their number themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def compiled():
    """Skips where the compiled operators are missing, and says why they are."""
    from vitlite.kernels import _extension

    if _extension.errors["_C"] is not None:
        pytest.skip(_extension.errors["_C"])


@pytest.fixture(params=LEVELS)
def level(request, compiled):
    """Runs a test with each instruction set that the processor has."""
    wanted = LEVELS[request.param]
    if torch.ops.vitlite.isa_level(wanted) != wanted:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    torch.ops.vitlite.isa_level(max(LEVELS.values()))
