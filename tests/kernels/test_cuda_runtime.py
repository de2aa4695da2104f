"""Every operator on a GPU as programs use it, by the backend that "auto" picks and by Triton: torch's operator checks,
compile, autocast, streams, graphs, devices.

Rehearsed by test_triton_interpreter.py, see gpu_place.py.
"""

import pytest
import torch
from contract import OPTIONS, call, larger, recorded, sample
from gpu_place import DEVICE, marks, only_on_a_gpu, sized
from rehearsal import REHEARSAL

from vitlite import kernels

pytestmark = marks

# The interpreter takes long for a window of 11.
MORE = {"ssim": {"window_size": sized(11, 3)}}
BACKENDS = ["triton"] if REHEARSAL else ["auto", "triton"]


class Use:
    """An operator by one backend: a function of its tensors that gives one tensor."""

    def __init__(self, op, backend):
        self.op, self.options = op, {"backend": backend, **MORE.get(op, {})}

    def __call__(self, *tensors):
        return call(self.op, *tensors, **self.options)[0]

    def tensors(self, dtype=torch.float32, sizes=None):
        sizes = sized(larger(self.op, 29), {}) if sizes is None else sizes
        drawn = sample(self.op, dtype, device=DEVICE, **sizes)
        if self.op in ("attention", "memory_read"):
            # On both sides of zero: the weights then differ, and their gradients are not what is left of terms that
            # cancel.
            drawn = [2 * a - 1.2 for a in drawn]
        return [a.requires_grad_() for a in drawn]


@pytest.fixture(params=[(op, backend) for op in kernels.OPERATORS for backend in BACKENDS], ids="-".join)
def use(request):
    op, backend = request.param
    if backend not in ("auto", *kernels.operator(op).backends.describe()["available"]):
        pytest.skip(kernels.backends(op)["unavailable"][backend])
    return Use(op, backend)


def results(function, tensors):
    value = function(*tensors)
    return [value.detach(), *torch.autograd.grad(value.float().square().sum(), tensors)]


def same(found, right, tolerance=1e-3):
    assert len(found) == len(right)
    for a, b in zip(found, right):
        assert a.shape == b.shape
        assert (a.float() - b.float()).abs().max() <= tolerance * b.float().abs().max().clamp_min(1e-6)


def test_opcheck(use):
    """On the very calls that the public function makes, forward and backward."""
    made = recorded(use.op, use.tensors(), **use.options)
    if use.options["backend"] == "triton":
        names = [f"vitlite::triton_{use.op}_{way}" for way in ("forward", "backward")]
        assert [operator._schema.name for operator, _ in made] == names
    for operator, arguments in made:
        torch.library.opcheck(operator, tuple(arguments), test_utils=("test_schema", "test_faketensor"))


def test_the_same_is_returned_on_every_device(use):
    """By the kernels for a GPU and by those for the processor: as many results of the same shapes, dtypes and values,
    also those that are kept for the backward pass."""
    operator = kernels.operator(use.op)
    there = "triton" if use.options["backend"] == "triton" else operator.backends.pick("auto", DEVICE.type)
    if not {"cpp", there} <= set(operator.forwards):
        pytest.skip("there is one kind of kernels")
    for keep in (False, True):
        made = recorded(use.op, use.tensors(), **use.options)
        for way, (_, arguments) in zip(("forward", "backward"), made):
            if way == "forward" and use.op == "memory_read":
                arguments[-1] = keep
            found, expected = (
                getattr(torch.ops.vitlite, f"{prefix}{use.op}_{way}")(
                    *[a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
                )
                for prefix, device in (("triton_" if there == "triton" else "", DEVICE), ("", "cpu"))
            )
            found, expected = ([a] if isinstance(a, torch.Tensor) else a for a in (found, expected))
            assert len(found) == len(expected)
            for a, b in zip(found, expected):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                largest = b.abs().max().item() if b.numel() else 0.0
                torch.testing.assert_close(a.cpu(), b, rtol=0, atol=2e-3 * largest)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(use, dynamic):
    torch.compiler.reset()
    tensors = use.tensors()
    same(results(torch.compile(use, fullgraph=True, dynamic=dynamic), tensors), results(use, tensors))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(use, dtype):
    tensors = use.tensors()
    with torch.autocast(DEVICE.type, dtype=dtype):
        value = use(*tensors)
    assert value.dtype == (dtype if use.op == "attention" else torch.float32)
    grads = torch.autograd.grad(value.float().square().sum(), tensors)
    assert all(g.dtype == torch.float32 for g in grads)
    same([value.detach(), *grads], results(use, tensors), 5e-2)


def test_gradcheck(use):
    if use.op == "attention" and use.options["backend"] == "auto":
        pytest.skip("torch's own")
    tensors = use.tensors(torch.float64, {})
    assert torch.autograd.gradcheck(use, tensors, fast_mode=True)


def test_gradient_of_one_tensor_alone(use):
    tensors = use.tensors()
    together = results(use, tensors)[1:]
    for wanted, right in enumerate(together):
        inputs = [a.detach().requires_grad_(i == wanted) for i, a in enumerate(tensors)]
        (alone,) = torch.autograd.grad(use(*inputs).float().square().sum(), inputs[wanted])
        same([alone], [right], 1e-5)


def test_same_bits_every_time(use):
    tensors = use.tensors()
    first = results(use, tensors)
    for _ in range(sized(5, 1)):
        assert all(torch.equal(a, b) for a, b in zip(first, results(use, tensors)))


def test_auto_takes_a_fused_kernel(use):
    if use.options["backend"] != "auto" or use.op == "attention":
        pytest.skip("torch's own fused attention comes first" if use.op == "attention" else "by name")
    assert kernels.backends(use.op)["auto"]["cuda"] in ("cuda", "triton")
    tensors = use.tensors()
    same(results(use, tensors), results(Use(use.op, "eager"), tensors), 1e-4)


@only_on_a_gpu
def test_streams(use):
    """Work that is queued on another stream waits for what that stream has to do first, and for nothing else."""
    tensors = use.tensors()
    right = results(use, tensors)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late = [(t.detach() * 1.0).requires_grad_() for t in tensors]
        found = results(use, late)
    stream.synchronize()
    same(found, right, 1e-5)


@only_on_a_gpu
def test_graphs(use):
    """A captured graph gives the results for what its inputs hold when it is replayed."""
    tensors = use.tensors()
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        for _ in range(3):
            results(use, tensors)
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = results(use, tensors)
    with torch.no_grad():
        for tensor in tensors:
            tensor.mul_(0.7).add_(0.05)
    graph.replay()
    torch.cuda.synchronize()
    same(found, results(use, tensors), 1e-5)


@only_on_a_gpu
def test_the_current_device_need_not_be_that_of_the_tensors(use):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    tensors = use.tensors()
    right = results(use, tensors)
    there = [t.detach().to("cuda:1").requires_grad_() for t in tensors]
    same([a.to("cuda:0") for a in results(use, there)], right, 1e-5)
    assert torch.cuda.current_device() == 0


def test_options_name_operators():
    assert {*OPTIONS, *MORE} <= set(kernels.OPERATORS)
