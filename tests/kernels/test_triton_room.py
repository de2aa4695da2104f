"""What the Triton launchers hold, multiply and launch, counted without a GPU: memory that does not grow with the number
of rows, products by torch, and one kernel between two of them."""

import weakref
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton_calls import HALF, SINGLE, empty, launchers, linear

from vitlite.kernels import _triton

pytest.importorskip("triton")

if _triton.interpreted():
    pytest.skip("kernels that are interpreted run", allow_module_level=True)


@pytest.mark.parametrize("items", [1, 2000, 3 << 20])
def test_memory_takes_no_more_room_for_more_queries(items):
    """A table between two products; what is kept for the backward pass is asked for by the caller."""
    room = launchers("memory")
    z, memory = empty(200_000, 4), empty(items, 4)
    with _triton.recording() as launches:
        output, entropy, *kept = room.memory_read_forward(z, memory, None, 1.0, False)
        room.memory_read_backward(output, entropy, z, memory, *kept, None, 1.0, True, True)
    tables = [
        launch.arguments[name] for launch in launches for name in ("products", "weights") if name in launch.arguments
    ]
    assert max(table.numel() for table in tables) <= max(room.ROOM, 16 * (items + 16))
    taken = [launch.kernel.__name__ for launch in launches]
    assert taken.count("memory_weights_kernel") == -(-200_000 // tables[0].shape[0])
    if items == 2000:
        assert len(launches) > 90  # it did take them a share at a time


@pytest.mark.parametrize(("save", "products"), [(True, 6), (False, 7)])
def test_memory_multiplies_by_torch_and_launches_one_kernel_between(save, products):
    """What a step costs: two products forward, and four backward if the weights are kept, as autograd of these."""
    z, memory = empty(2000, 64), empty(2000, 64)
    with Products() as counted, _triton.recording() as launches:
        room = launchers("memory")
        output, entropy, *kept = room.memory_read_forward(z, memory, None, 1.0, save)
        room.memory_read_backward(output, entropy, z, memory, *kept, None, 1.0, True, True)
    assert counted.number == products
    taken = Counter(launch.kernel.__name__ for launch in launches)
    assert taken == {
        "row_norms_kernel": 4,
        "memory_weights_kernel": 1,
        "memory_score_grads_kernel": 1,
        "memory_unit_grads_kernel": 2,
    }


class Products(TorchDispatchMode):
    """Counts matrix products."""

    number, kinds = 0, {"mm", "addmm", "addmm_"}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function._schema.name.removeprefix("aten::") in self.kinds
        return function(*args, **(kwargs or {}))


class Held(TorchDispatchMode):
    """Bytes of the tensors that are made inside and not gone yet, and the most that these were."""

    now = most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        # Views and results of "out" and of operators in place have no memory of their own.
        made = isinstance(result, torch.Tensor) and not any(r.alias_info for r in function._schema.returns)
        if made and result.numel():
            size = result.untyped_storage().nbytes()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(result.untyped_storage(), self.gone, size)
        return result

    def gone(self, size):
        self.now -= size


@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
@pytest.mark.parametrize(
    ("rows", "blocks", "chunks"), [(1, 1, 5), (784, 1, 8), (2304, 1, 22), (4608, 2, 22), (20_000, 5, 38)]
)
def test_the_head_multiplies_by_torch_and_launches_one_kernel_between(rows, blocks, chunks, dtype):
    """What a step costs. Of a block of rows and components: two products for the kernel of the forward pass, the same
    two for that of the backward pass, and four with what this one gives. Three products are of the logits."""
    with Products() as counted, _triton.recording() as launches:
        linear(rows, 150, 512, 512, True, dtype)
    assert counted.number == 3 + 8 * blocks * chunks
    assert Counter(launch.kernel.__name__ for launch in launches) == {
        "linear_gmm_densities_kernel": blocks * chunks,
        "linear_gmm_likelihood_kernel": 1,
        "gmm_logits_kernel": 1,
        "linear_gmm_gradients_kernel": blocks * chunks,
    }


@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
@pytest.mark.parametrize(
    ("rows", "components", "dims", "features", "chunk"),
    [
        (2304, 150, 512, 512, 0),
        (40_000, 150, 512, 64, 0),
        (40_000, 3, 30, 8, 0),
        (40_000, 30, 512, 64, 30),
        (3, 20_000, 512, 64, 0),
        (500, 2, 1 << 20, 4, 0),
    ],
)
def test_the_head_takes_no_more_room_for_more_rows_and_components(
    rows, components, dims, features, chunk, dtype, monkeypatch
):
    """Two tables and, for each program, sums over its rows; in half precision two more tables and the gradients of a
    block of weights in float32. The rest is as large as what is given, and the gradients."""
    room = launchers("gmm", "linear_triton")
    for module in (room, launchers("gmm")):  # launches that are recorded would hold their tensors
        monkeypatch.setattr(module, "launch", lambda *_, **__: None)
    for module in (room, _triton):  # cuBLAS copies nothing
        monkeypatch.setattr(module, "multiply", lambda *_: None)
    x, y, w_logits = empty(rows, features, dtype=dtype), empty(rows, dims), empty(components, features)
    weight, bias = empty(components * dims, features, dtype=dtype), empty(components * dims)
    tensors = (x, y, w_logits, weight, weight, empty(components), bias, bias)
    with Held() as forward:
        grad, *kept = room.linear_gmm_log_likelihood_forward(*tensors, 1e-3, chunk)
    with Held() as backward:
        found = room.linear_gmm_log_likelihood_backward(grad, *tensors, *kept, 1e-3, chunk, *[True] * 5)
    table = 4 * max(room.ROOM, 16 * (max(chunk, 1) * dims + 16))
    given = 4 * 2 * rows * (components + features)
    assert 2 * 4 * min(rows, 16) * dims < forward.most <= 2 * table + given
    gradients = sum(a.numel() * a.element_size() for a in found)
    more = (table / 2 + 4 * max(room.ROOM, dims * features) if dtype == HALF else 0) + table / 16
    assert gradients < backward.most <= 2 * (table + more) + gradients + 2 * 4 * bias.numel() + given


@pytest.mark.parametrize(("k", "rows"), [(1, 5000), (4, 5000), (4, 1 << 22)])
def test_nearest_takes_no_more_room_for_more_queries(k, rows):
    room = launchers("nearest").ROOM
    with _triton.recording() as launches:
        launchers("nearest").nearest_forward(empty(100_000, 4), empty(rows, 4), k)
    given = "q", "bank"
    numbers = [
        tensor.numel()
        for launch in launches
        for name, tensor in launch.arguments.items()
        if isinstance(tensor, torch.Tensor) and name not in given
    ]
    assert max(numbers) <= max(room, 16 * rows)
