"""The Triton kernels compiled, on a GPU: against the oracles, and under everything torch does with an operator.

Rehearsed by test_triton_interpreter.py, see gpu_place.py.
"""

import os

import pytest
import torch
import triton_cases as cases
from gpu_place import DEVICE, marks, only_on_a_gpu, sized
from rehearsal import REHEARSAL

from vitlite.kernels import attention, gmm_log_likelihood, linear_gmm_log_likelihood, memory_read, ssim
from vitlite.kernels._triton import interpreted, recording

# Without it torch refuses deterministic matrix products, which the tests ask for.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

pytest.importorskip("triton")

pytestmark = [*marks, pytest.mark.skipif(interpreted() != REHEARSAL, reason="Triton interprets on the CPU only")]


def rand(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()


def normal(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()


IMAGES, WINDOW = sized((2, 3, 40, 33), (1, 2, 4, 9)), sized(11, 3)
TOKENS, ROWS = sized((2, 3, 50, 30), (1, 2, 20, 30)), sized((70, 48), (20, 24))
# Each operator as a function of tensors alone, and tensors for it.
CALLS = {
    "attention": (
        lambda q, k, v, **b: attention(q, k, v, **b),
        lambda dtype: [normal(*TOKENS, dtype=dtype, seed=i) for i in range(3)],
    ),
    "memory_read": (
        lambda z, items, **b: memory_read(z, items, threshold=0.0, **b)[0],
        lambda dtype: [normal(*ROWS, dtype=dtype), normal(33, ROWS[1], dtype=dtype, seed=1)],
    ),
    "ssim": (
        lambda x, y, **b: ssim(x, y, window_size=WINDOW, **b),
        lambda dtype: [rand(*IMAGES, dtype=dtype), rand(*IMAGES, dtype=dtype, seed=1)],
    ),
    "gmm_log_likelihood": (
        lambda y, logits, mean, raw, **b: gmm_log_likelihood(y, logits, mean, raw.abs() + 0.5, **b),
        lambda dtype: [normal(9, 20, dtype=dtype), *(normal(9, *s, dtype=dtype) for s in ((7,), (7, 20), (7, 20)))],
    ),
    "linear_gmm_log_likelihood": (
        lambda *tensors, **b: linear_gmm_log_likelihood(*tensors, **b),
        lambda dtype: [normal(*s, dtype=dtype) for s in ((40, 24), (40, 10), (5, 24), (50, 24), (50, 24), (5,))],
    ),
}
every_operator = pytest.mark.parametrize("op", CALLS)


def value_and_gradients(function, tensors, **options):
    value = function(*tensors, **options)
    grads = torch.autograd.grad(value.float().square().sum(), tensors)
    return [value.detach(), *grads]


def assert_alike(found, right, tolerance):
    for f, r in zip(found, right):
        torch.testing.assert_close(f.float(), r.float(), rtol=0, atol=tolerance * r.float().abs().max().item())


@pytest.mark.parametrize(("shape", "dtype"), cases.ATTENTION, ids=str)
def test_attention(shape, dtype):
    cases.check_attention(DEVICE, shape, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape",
    sized(
        [(2, 3, 577, 577, 64, 64), (1, 2, 1025, 1025, 64, 64), (2, 2, 300, 200, 96, 80)],
        [(1, 2, 97, 97, 64, 64), (1, 1, 80, 50, 96, 80)],
    ),
    ids=str,
)
def test_attention_of_many_tokens(shape, dtype):
    cases.check_attention(DEVICE, shape, dtype)


def test_attention_under_every_circumstance():
    cases.check_attention_with_large_scores(DEVICE)
    cases.check_attention_of_any_strides(DEVICE)
    with pytest.raises(ValueError, match=r"^q: heads of 300 are wider"):
        attention(*[torch.rand(1, 1, 2, 300, device=DEVICE)] * 3, backend="triton")


@pytest.mark.parametrize(("shape", "scale", "dtype", "options"), cases.MEMORY, ids=str)
def test_memory(shape, scale, dtype, options):
    cases.check_memory(DEVICE, shape, scale, dtype, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_memory_of_many_items(dtype):
    cases.check_memory(DEVICE, sized((300, 700, 768), (40, 70, 100)), 1.0, dtype, {"threshold": 0.0})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_memory_of_a_few_queries_at_a_time(dtype, monkeypatch):
    """As it goes where the weights of all queries are more than there is room for."""
    from vitlite.kernels.memory import triton

    monkeypatch.setattr(triton, "ROOM", 40 * 33)
    assert [s.stop for s in triton.slabs(70, triton.at_a_time(70, 33, triton.ROOM))] == [40, 70]
    cases.check_memory(DEVICE, (70, 33, 40), 1.0, dtype, {"threshold": 0.0})


def test_memory_under_every_circumstance():
    cases.check_memory_that_is_all_shrunk(DEVICE)
    cases.check_memory_with_zero_rows(DEVICE)
    cases.check_memory_with_a_bad_row(DEVICE)


@pytest.mark.parametrize(("shape", "window_size", "padding", "reduction", "dtype"), cases.SSIM, ids=str)
def test_ssim(shape, window_size, padding, reduction, dtype):
    cases.check_ssim(DEVICE, shape, window_size, padding, reduction, dtype)


@pytest.mark.parametrize("window_size", [11, 25])
def test_ssim_of_large_images(window_size):
    cases.check_ssim(DEVICE, sized((2, 3, 150, 301), (1, 1, 3, 37)), window_size, "same", "none", torch.float32)


def test_ssim_under_every_circumstance():
    cases.check_ssim_of_any_strides(DEVICE)
    with pytest.raises(ValueError, match=r"^window_size: 27 is more than"):
        ssim(*[torch.rand(1, 1, 30, 30, device=DEVICE)] * 2, window_size=27, backend="triton")


@pytest.mark.parametrize(("shape", "scale", "isotropic", "dtype"), cases.GMM, ids=str)
def test_gmm(shape, scale, isotropic, dtype):
    cases.check_gmm(DEVICE, shape, scale, isotropic, dtype)


def test_gmm_under_every_circumstance():
    cases.check_gmm_of_any_strides(DEVICE)


@pytest.mark.parametrize(("shape", "scale", "biases", "chunk", "dtype"), cases.LINEAR, ids=str)
def test_linear_gmm(shape, scale, biases, chunk, dtype):
    cases.check_linear(DEVICE, shape, scale, biases, chunk, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_linear_gmm_of_many_rows(dtype):
    cases.check_linear(DEVICE, sized((300, 9, 130, 200), (70, 3, 40, 50)), 1.0, True, 0, dtype)


def test_gradient_of_one_argument_alone():
    z, items, *grads = cases.on(DEVICE, cases.test_memory.problem(7, 22, 9))
    both = cases.test_memory.run(z, items, *grads, backend="triton")[2:]
    for wanted in (0, 1):
        inputs = [a.detach().requires_grad_(i == wanted) for i, a in enumerate((z, items))]
        (alone,) = torch.autograd.grad(memory_read(*inputs, backend="triton"), inputs[wanted], grads)
        torch.testing.assert_close(alone, both[wanted])
    tensors, grad = cases.test_gmm_linear.problem(4, 3, 5, 6)
    tensors, grad = cases.on(DEVICE, tensors), grad.to(DEVICE)
    whole = cases.test_gmm_linear.run(tensors, grad, backend="triton")[1:]
    for wanted, right in enumerate(whole):
        inputs = [a.detach().requires_grad_(i == wanted) for i, a in enumerate(tensors)]
        (alone,) = torch.autograd.grad(linear_gmm_log_likelihood(*inputs, backend="triton"), inputs[wanted], grad)
        torch.testing.assert_close(alone, right)


def test_second_derivatives():
    q = torch.rand(1, 1, 3, 4, dtype=torch.float64).to(DEVICE).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda q: attention(q, q, q, backend="triton"), (q,), fast_mode=True)


@every_operator
def test_gradcheck(op):
    function, make = CALLS[op]
    tensors = [t.detach()[..., :4].requires_grad_() if op == "attention" else t for t in make(torch.float64)]
    if op == "ssim":
        tensors = [t.detach()[:1, :1, :9, :8].requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *t: function(*t, backend="triton"), tensors, fast_mode=True)


@every_operator
def test_opcheck(op):
    """On the very calls that the public function makes, forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    made = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.namespace == "vitlite":
                made.append((function, args))
            return function(*args, **(kwargs or {}))

    function, make = CALLS[op]
    with Recorder():
        value_and_gradients(function, make(torch.float32), backend="triton")
    assert [str(f) for f, _ in made] == [f"vitlite.triton_{op}_{step}.default" for step in ("forward", "backward")]
    for operator, arguments in made:
        arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
        torch.library.opcheck(operator, tuple(arguments), test_utils=("test_schema", "test_faketensor"))


@every_operator
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(op, dynamic):
    torch.compiler.reset()
    function, make = CALLS[op]
    tensors = make(torch.float32)
    compiled = torch.compile(lambda *t: function(*t, backend="triton") * 2, fullgraph=True, dynamic=dynamic)
    found = value_and_gradients(compiled, tensors)
    right = value_and_gradients(lambda *t: function(*t, backend="triton") * 2, tensors)
    assert_alike(found, right, 1e-5)


@every_operator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(op, dtype):
    function, make = CALLS[op]
    tensors = make(torch.float32)
    with torch.autocast(DEVICE.type, dtype=dtype):
        found = function(*tensors, backend="triton")
    assert found.dtype == (dtype if op == "attention" else torch.float32)
    grads = torch.autograd.grad(found.float().square().sum(), tensors)
    assert all(g.dtype == torch.float32 for g in grads)
    assert_alike([found.detach(), *grads], value_and_gradients(function, tensors, backend="triton"), 0.05)


@only_on_a_gpu
@every_operator
def test_cuda_graph_replays_on_new_numbers(op):
    function, make = CALLS[op]
    tensors = make(torch.float32)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            value_and_gradients(function, tensors, backend="triton")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = value_and_gradients(function, tensors, backend="triton")
    with torch.no_grad():
        for tensor in tensors:
            tensor.mul_(0.7).add_(0.05)
    graph.replay()
    assert_alike(kept, value_and_gradients(function, tensors, backend="triton"), 1e-6)


@only_on_a_gpu
@every_operator
def test_runs_on_the_current_stream(op):
    """Behind work on a side stream that has not ended, and without waiting for it."""
    function, make = CALLS[op]
    tensors = make(torch.float32)
    right = value_and_gradients(function, tensors, backend="triton")
    late = [torch.zeros_like(t) for t in tensors]
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        for empty, tensor in zip(late, tensors):
            empty.copy_(tensor.detach())
        found = value_and_gradients(function, [t.requires_grad_() for t in late], backend="triton")
    side.synchronize()
    assert_alike(found, right, 1e-6)


@every_operator
def test_same_bits_every_time(op):
    function, make = CALLS[op]
    tensors = make(torch.float32)
    first = value_and_gradients(function, tensors, backend="triton")
    for _ in range(sized(5, 1)):
        assert all(torch.equal(a, b) for a, b in zip(first, value_and_gradients(function, tensors, backend="triton")))


@every_operator
def test_auto_takes_a_fused_kernel(op):
    if op == "attention":
        pytest.skip("torch's own fused attention comes first")
    function, make = CALLS[op]
    from vitlite.kernels import backends

    assert REHEARSAL or backends(op)["auto"]["cuda"] in ("cuda", "triton")
    tensors = make(torch.float32)
    assert_alike(value_and_gradients(function, tensors), value_and_gradients(function, tensors, backend="eager"), 1e-4)


@only_on_a_gpu
@pytest.mark.slow
def test_more_elements_than_32_bits_count():
    rows, components, dims = 2**16 + 3, 64, 512  # 2^31 and some in each of mean and std
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of GPU memory")
    mean = torch.full((rows, components, dims), 0.25, device=DEVICE, dtype=torch.bfloat16)
    mean[-2:] = normal(2, components, dims, dtype=torch.bfloat16).detach()
    y, logits = rand(rows, dims, dtype=torch.bfloat16).detach(), rand(rows, components, dtype=torch.bfloat16).detach()
    found = gmm_log_likelihood(y, logits, mean, mean.abs() + 1, backend="triton")[-3:]
    right = gmm_log_likelihood(y[-3:], logits[-3:], mean[-3:], mean[-3:].abs() + 1, backend="eager")
    torch.testing.assert_close(found, right, rtol=2e-2, atol=0)


def test_nothing_runs_while_launches_are_recorded():
    with recording() as launches:
        memory_read(normal(4, 8).detach(), normal(3, 8).detach(), backend="triton")
    assert len(launches) == 4
