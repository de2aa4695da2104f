"""Every operator on a GPU as programs use it: torch's operator checks, compile, autocast, streams, graphs, devices.

Rehearsed by test_triton_interpreter.py, see gpu_place.py.
"""

import pytest
import torch
from gpu_place import DEVICE, marks, only_on_a_gpu, sized
from rehearsal import REHEARSAL

from vitlite import kernels

pytestmark = marks

SHAPES = {
    "ssim": [sized((2, 3, 40, 50), (1, 2, 4, 9))] * 2,
    "gmm_log_likelihood": [(20, 32), (20, 6), (20, 6, 32), (20, 6, 32)],
    "linear_gmm_log_likelihood": [(20, 16), (20, 12), (5, 16), (60, 16), (60, 16)],
    "memory_read": [sized((70, 32), (20, 32)), (40, 32)],
    "attention": [sized((2, 3, 65, 30), (1, 2, 20, 30))] * 3,
}


@pytest.fixture(params=SHAPES)
def operator(request):
    """(function of the tensors that gives one tensor, tensors on the GPU)."""
    op, function = request.param, getattr(kernels, request.param)
    generator = torch.Generator().manual_seed(0)
    # Queries and keys on both sides of zero: the weights then differ, and their gradients are not what is left of
    # terms that cancel.
    draw = torch.randn if op == "attention" else torch.rand
    tensors = [draw(size, generator=generator) for size in SHAPES[op]]
    if op == "gmm_log_likelihood":
        tensors[3] += 0.5
    # The compiled kernels for attention are torch's own; ours are asked for by name.
    ours = op == "attention" and "triton" in kernels.backends(op)["available"]
    backend = "triton" if ours or REHEARSAL else "auto"

    options = {"window_size": sized(11, 3)} if op == "ssim" else {}

    def call(*inputs):
        value = function(*inputs, backend=backend, **options)
        return value[0] if op == "memory_read" else value

    return call, [t.to(DEVICE).requires_grad_() for t in tensors]


def results(function, tensors):
    value = function(*tensors)
    return [value.detach(), *torch.autograd.grad(value.square().sum(), tensors)]


def same(ours, right, tolerance=1e-3):
    for a, b in zip(ours, right):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-6)


@pytest.mark.parametrize("op", ["ssim", "gmm_log_likelihood"])
def test_opcheck(op):
    reason = kernels.backends(op)["unavailable"].get("cuda")
    if reason:
        pytest.skip(reason)
    tensors = [torch.rand(size, device=DEVICE) + 0.2 for size in SHAPES[op]]
    forward = getattr(torch.ops.vitlite, f"{op}_forward").default
    more = (11, 1.5, 1.0, True, 1) if op == "ssim" else ()
    torch.library.opcheck(forward, (*tensors, *more))
    backward = getattr(torch.ops.vitlite, f"{op}_backward").default
    if op == "ssim":
        torch.library.opcheck(backward, (torch.ones((), device=DEVICE), *tensors, *more, True, True))
    else:
        shares = forward(*tensors)[1]
        grad = torch.ones(tensors[0].shape[0], device=DEVICE)
        torch.library.opcheck(backward, (grad, *tensors, shares, True, True, True, True))


def test_compile(operator):
    function, tensors = operator
    torch.compiler.reset()
    same(results(torch.compile(function, fullgraph=True), tensors), results(function, tensors))


def test_autocast(operator):
    function, tensors = operator
    with torch.autocast(DEVICE.type, torch.bfloat16):
        value = function(*tensors)
    grads = torch.autograd.grad(value.float().square().sum(), tensors)
    same([value.detach().float(), *grads], results(function, tensors), 4e-2)


@only_on_a_gpu
def test_streams(operator):
    """Work that is queued on another stream waits for what that stream has to do first."""
    function, tensors = operator
    right = results(function, tensors)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late = [(t.detach() * 1.0).requires_grad_() for t in tensors]
        found = results(function, late)
    stream.synchronize()
    same(found, right, 1e-5)


@only_on_a_gpu
def test_graphs(operator):
    """A captured graph gives the results for what its inputs hold when it is replayed."""
    function, tensors = operator
    fixed = [t.detach().clone().requires_grad_() for t in tensors]
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        for _ in range(3):
            results(function, fixed)
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = results(function, fixed)
    fresh = [(t.detach() * 0.9 + 0.05).requires_grad_() for t in tensors]
    with torch.no_grad():
        for to, value in zip(fixed, fresh):
            to.copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    same(found, results(function, fresh), 1e-5)


@only_on_a_gpu
def test_the_current_device_need_not_be_that_of_the_tensors(operator):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    function, tensors = operator
    right = results(function, tensors)
    there = [t.detach().to("cuda:1").requires_grad_() for t in tensors]
    same([a.to("cuda:0") for a in results(function, there)], right, 1e-5)
    assert torch.cuda.current_device() == 0
