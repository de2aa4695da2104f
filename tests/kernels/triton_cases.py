"""What the Triton kernels must get right wherever they run: in the interpreter on a CPU and compiled on a GPU.

Each check takes a device. Problems, oracles and what counts as exact enough are those of the other backends' tests.
"""

import numpy as np
import test_attention
import test_gmm
import test_gmm_linear
import test_memory
import test_nearest
import test_ssim
import torch

from vitlite.kernels import Bank, attention, gmm_log_likelihood, memory_read, nearest, ssim
from vitlite.kernels.attention.reference import attention_numpy, attention_torch
from vitlite.kernels.memory.reference import memory_read_numpy
from vitlite.kernels.ssim.reference import ssim_torch

HALF = (torch.float16, torch.bfloat16)

ATTENTION = [
    *[(shape, torch.float32) for shape in test_attention.SHAPES],
    ((1, 1, 35, 40, 80, 96), torch.float32),
    ((1, 1, 17, 17, 30, 30), torch.float64),
    ((1, 2, 33, 17, 30, 30), torch.bfloat16),
    ((1, 1, 20, 35, 64, 24), torch.float16),
]
MEMORY = [
    *[(shape, 1.0, torch.float32, {}) for shape in [(1, 1, 1), (3, 1, 30), (5, 33, 17), (20, 40, 48)]],
    ((5, 33, 17), 1e4, torch.float32, {}),
    ((5, 33, 17), 1e-3, torch.float32, {"threshold": 0.0}),
    ((12, 40, 16), 1.0, torch.float32, {"temperature": 30.0}),
    ((7, 20, 300), 1.0, torch.float32, {}),
    ((5, 33, 17), 1.0, torch.float64, {}),
    ((9, 20, 33), 1.0, torch.bfloat16, {}),
    ((9, 20, 33), 1.0, torch.float16, {}),
]
NEAREST = [
    *[(shape, torch.float32) for shape in [(1, 1, 1, 1), (3, 7, 30, 7), (20, 200, 48, 1), (20, 150, 17, 3)]],
    ((5, 33, 17, 2), torch.float64),
    ((9, 40, 33, 3), torch.bfloat16),
    ((40, 60, 16, 1), torch.float16),
]
SSIM = [
    ((1, 1, 1, 1), 11, "same", "sum", torch.float32),
    ((2, 1, 5, 33), 5, "same", "none", torch.float32),
    ((1, 2, 4, 9), 7, "same", "mean", torch.float32),
    ((1, 1, 12, 35), 11, "valid", "mean", torch.float32),
    ((1, 2, 6, 7), 3, "valid", "none", torch.float64),
    ((1, 1, 6, 35), 3, "same", "none", torch.float16),
    ((1, 1, 6, 9), 3, "same", "mean", torch.bfloat16),
]
GMM = [
    *[(shape, 1.0, False, torch.float32) for shape in test_gmm.SHAPES],
    ((5, 33, 17), 1e4, False, torch.float32),
    ((5, 33, 17), 1e-3, True, torch.float32),
    ((2, 3, 2100), 1.0, True, torch.float32),
    ((3, 300, 20), 1.0, False, torch.float64),
    ((4, 9, 30), 1.0, True, torch.float16),
    ((4, 9, 30), 1.0, False, torch.bfloat16),
]
LINEAR = [
    *[(shape, 1.0, True, 0, torch.float32) for shape in test_gmm_linear.SHAPES[:3]],
    ((6, 5, 17, 8), 1.0, False, 2, torch.float32),
    ((20, 3, 70, 40), 1e4, True, 0, torch.float32),
    ((6, 3, 17, 8), 1.0, True, 1, torch.float64),
    ((6, 3, 17, 8), 1.0, True, 0, torch.bfloat16),
    ((6, 3, 17, 8), 1.0, True, 0, torch.float16),
]


def errors(found, expected):
    return [(f.detach().cpu().double() - e).abs().max().item() if e.numel() else 0.0 for f, e in zip(found, expected)]


def assert_as_exact_as_eager(ours, eager, expected, dtype, condition=1.0, terms=1e-30):
    """Errors are at most twice those of eager torch, plus rounding.

    Rounding is (20 + ``condition``) units of the largest number of a result, or of ``terms``: the size of what may
    cancel in it.
    """
    for index, (our, other, right) in enumerate(zip(errors(ours, expected), errors(eager, expected), expected)):
        largest = right.abs().max().item() if right.numel() else 0.0
        rounding = (20 + condition) * torch.finfo(dtype).eps * max(largest, terms)
        assert our <= 2 * other + rounding, f"result {index}: {our:.2e}, eager {other:.2e}, rounding {rounding:.2e}"


def longest(rows):
    """Euclidean norm of the longest row."""
    return rows.norm(dim=-1).max().item() if rows.numel() else 0.0


def on(device, tensors):
    return [a if a is None else a.to(device) for a in tensors]


def check_attention(device, shape, dtype, scale=0.3):
    q, k, v = test_attention.tokens(shape, torch.float64)
    wide = [t.to(dtype).double().requires_grad_() for t in (q, k, v)]
    right = attention_torch(*wide, scale)
    np.testing.assert_allclose(right.detach(), attention_numpy(*(t.detach() for t in wide), scale), atol=1e-12)
    grad = torch.randn(right.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    expected = [right.detach(), *torch.autograd.grad(right, wide, grad.double())]
    found = {}
    for backend in ("triton", "eager"):
        inputs = [t.detach().to(device, dtype).requires_grad_() for t in wide]
        result = attention(*inputs, scale=scale, backend=backend)
        assert result.dtype == dtype
        found[backend] = [result, *torch.autograd.grad(result, inputs, grad.to(device))]
    # The gradient of a score is the difference of two products of the result's gradient with values.
    terms = scale * longest(grad.double()) * longest(wide[2].detach())
    assert_as_exact_as_eager(found["triton"], found["eager"], expected, dtype, terms=terms)


def check_attention_with_large_scores(device):
    inputs = on(device, test_attention.tokens((1, 2, 6, 9, 8, 8), scale=1e4))
    found = attention(*inputs, backend="triton")
    np.testing.assert_allclose(found.cpu(), attention_numpy(*(t.cpu() for t in inputs)), rtol=1e-4)


def check_attention_of_any_strides(device):
    packed = torch.randn(2, 10, 3, 4, 6, generator=torch.Generator().manual_seed(0)).to(device).permute(2, 0, 3, 1, 4)
    q, k, v = packed.unbind(0)
    found = attention(q, k[:, :, ::2], v[:, :, ::2], backend="triton")
    torch.testing.assert_close(found, attention(q, k[:, :, ::2], v[:, :, ::2], backend="eager"))
    negative = attention(q, k, v, scale=-2.0, backend="triton")
    torch.testing.assert_close(negative, attention(q, k, v, scale=-2.0, backend="eager"))


def check_memory(device, shape, scale, dtype, options):
    # A threshold of 0 is never reached, and no row has to keep clear of it.
    margin = 0.0 if options.get("threshold") == 0.0 else 1e-3
    arguments = test_memory.problem(*shape, dtype, scale, margin=margin, temperature=options.get("temperature", 1.0))
    expected = test_memory.oracle(*arguments, **options)
    here = on(device, arguments)
    found = {b: test_memory.run(*here, backend=b, **options) for b in ("triton", "eager")}
    # Scores, and with them their rounding errors, grow with the temperature.
    condition = options.get("temperature", 1.0)
    assert_as_exact_as_eager(found["triton"], found["eager"], expected, dtype, condition)


def check_memory_that_is_all_shrunk(device):
    arguments = on(device, test_memory.problem(5, 12, 8))
    for threshold in (1.0, 3.5):
        for found in test_memory.run(*arguments, threshold=threshold, backend="triton"):
            assert (found == 0).all()
    # The softmax of N equal cosines is 1 / N within rounding: not above the threshold.
    for count in (1, 3, 7, 49, 107):
        output, entropy = memory_read(
            torch.zeros(2, 6, device=device), torch.randn(count, 6, device=device), backend="triton"
        )
        assert (output == 0).all(), count
        assert (entropy == 0).all(), count


def check_memory_with_zero_rows(device):
    z, items, grad_output, grad_entropy = test_memory.problem(6, 25, 12)
    z[2] = 0
    items[3] = 0
    expected = test_memory.oracle(z, items, grad_output, grad_entropy, threshold=0.039)
    found = test_memory.run(*on(device, (z, items, grad_output, grad_entropy)), threshold=0.039, backend="triton")
    for f, e in zip(found, expected):
        torch.testing.assert_close(f.cpu().double(), e, rtol=0, atol=1e-4 * e.abs().max().item())
    none = test_memory.run(
        *on(device, (torch.zeros(0, 6), torch.randn(5, 6), torch.zeros(0, 6), torch.zeros(0))), backend="triton"
    )
    assert [tuple(f.shape) for f in none] == [(0, 6), (0,), (0, 6), (5, 6)]
    assert (none[3] == 0).all()


def check_memory_with_a_bad_row(device):
    z, items, *_ = on(device, test_memory.problem(9, 37, 18))
    z[4, 7] = float("nan")
    output, entropy = memory_read(z, items, backend="triton")
    spoiled = torch.arange(9, device=device) == 4
    assert torch.equal(output.isnan().all(1), spoiled)
    assert torch.equal(output.isnan().any(1), spoiled)
    assert torch.equal(entropy.isnan(), spoiled)
    right = memory_read_numpy(z[:4].cpu(), items.cpu())[0]
    np.testing.assert_allclose(output[:4].cpu(), right, atol=1e-5)


def check_nearest(device, shape, dtype):
    arguments = test_nearest.problem(*shape, dtype)
    expected = test_nearest.oracle(*arguments)
    here = on(device, arguments)
    found = {b: test_nearest.run(*here, backend=b) for b in ("triton", "eager")}
    assert torch.equal(found["triton"][1].cpu(), expected[1])
    values = [[found[b][i] for i in (0, 2, 3)] for b in ("triton", "eager")]
    assert_as_exact_as_eager(*values, [expected[i] for i in (0, 2, 3)], dtype)


def check_nearest_under_every_circumstance(device):
    """Ties, what is not a number, distances of 0, a bank that is kept, and more queries than are taken at a time."""
    for k in (1, 3):
        q, bank = (test_nearest.whole(*shape).to(device) for shape in ((6, 3), (40, 3)))
        bank[4] = float("nan")
        distances, indices = nearest(q, bank, k=k, backend="triton")
        right = nearest(q.cpu(), bank.cpu(), k=k, backend="eager")
        assert torch.equal(indices.cpu(), right[1])
        torch.testing.assert_close(distances.cpu(), right[0])
        assert torch.equal(nearest(q, Bank(bank), k=k, backend="triton")[1], indices)
    last = nearest(q, bank[:6], k=6, backend="triton")
    assert (last[1][:, -1] == 4).all()
    assert last[0].isnan().sum() == 6
    own = torch.randn(9, 10, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    distances, indices = nearest(own, own, backend="triton")
    assert (distances == 0).all()
    assert (torch.autograd.grad(distances.sum(), own)[0] == 0).all()
    assert nearest(own[:0], own, k=2, backend="triton")[1].shape == (0, 2)


def check_ssim(device, shape, window_size, padding, reduction, dtype):
    window = "uniform" if window_size == 7 else "gaussian"
    options = (window_size, 1.5 if window == "gaussian" else 0.0, 1.0, padding == "same")
    pair = test_ssim.images(shape, dtype)
    wide = [image.double().requires_grad_() for image in pair]
    values = ssim_torch(*wide, *options)
    test_ssim.oracle(*pair, window_size=window_size, window=window, padding=padding)  # checks ssim_torch itself
    right = {"none": values, "mean": values.mean(), "sum": values.sum()}[reduction]
    grad = torch.randn(right.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    expected = [right.detach(), *torch.autograd.grad(right, wide, grad.double())]
    found = {}
    for backend in ("triton", "eager"):
        inputs = [image.detach().to(device).requires_grad_() for image in pair]
        result = ssim(
            *inputs, window_size=window_size, window=window, padding=padding, reduction=reduction, backend=backend
        )
        assert result.dtype == dtype
        found[backend] = [result, *torch.autograd.grad(result, inputs, grad.to(device))]
    assert_as_exact_as_eager(found["triton"], found["eager"], expected, dtype)


def check_ssim_of_any_strides(device):
    x, y = (image.to(device) for image in test_ssim.images((1, 2, 9, 10)))
    x = x.to(memory_format=torch.channels_last)[..., ::2].requires_grad_()
    y = y.transpose(2, 3).contiguous().transpose(2, 3)[..., 5:]
    assert not x.is_contiguous()
    (found,) = torch.autograd.grad(ssim(x, y, backend="triton", window_size=3), x)
    (right,) = torch.autograd.grad(ssim(x, y, backend="eager", window_size=3), x)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
    assert ssim(x[:0], y[:0], reduction="none", backend="triton").shape == (0, 2, 9, 5)


def check_gmm(device, shape, scale, isotropic, dtype):
    arguments = test_gmm.problem(*shape, dtype, scale, isotropic)
    expected = test_gmm.oracle(*arguments)
    here = on(device, arguments)
    found = {b: test_gmm.run(*here, backend=b) for b in ("triton", "eager")}
    # Shares are exponentials of differences of numbers as large as this.
    condition = max(1.0, expected[0].abs().max().item())
    # The gradient of a logit is the difference of two shares, times that of the likelihood.
    terms = arguments[-1].abs().max().item()
    assert_as_exact_as_eager(found["triton"], found["eager"], expected, dtype, condition, terms)


def check_gmm_of_any_strides(device):
    y, logits, mean, std, _ = on(device, test_gmm.problem(6, 5, 12))
    views = y[:, ::2], logits.t().contiguous().t(), mean[:1, :, ::2].expand(6, 5, 6), std[:1, :, ::2].expand(6, 5, 6)
    inputs = [a.detach().requires_grad_() for a in views]
    found, right = (gmm_log_likelihood(*inputs, backend=backend) for backend in ("triton", "eager"))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    weight = torch.arange(1.0, 7, device=device)
    for f, r in zip(torch.autograd.grad(found, inputs, weight), torch.autograd.grad(right, inputs, weight)):
        torch.testing.assert_close(f, r, rtol=1e-3, atol=1e-4 * r.abs().max().item())
    assert gmm_log_likelihood(y[:0], logits[:0], mean[:0], std[:0], backend="triton").shape == (0,)


def check_linear(device, shape, scale, biases, chunk, dtype):
    tensors, grad = test_gmm_linear.problem(*shape, dtype, scale, biases)
    expected = test_gmm_linear.oracle(tensors, grad)
    here, grad = on(device, tensors), grad.to(device)
    ours = test_gmm_linear.run(here, grad, backend="triton", chunk=chunk or None)
    eager = test_gmm_linear.run(here, grad, backend="eager")
    condition = max(1.0, expected[0].abs().max().item())
    assert_as_exact_as_eager(ours, eager, expected, dtype, condition)


def check_linear_of_no_rows(device, dtype):
    tensors, grad = test_gmm_linear.problem(3, 4, 6, 5, dtype)
    tensors[:2] = [a[:0] for a in tensors[:2]]
    found = test_gmm_linear.run(on(device, tensors), grad[:0].to(device), backend="triton")
    assert [f.shape for f in found[1:]] == [a.shape for a in tensors]
    assert found[0].shape == (0,)
    assert all((f == 0).all() for f in found)


def check_linear_twice(device, shape, dtype):
    tensors, grad = test_gmm_linear.problem(*shape, dtype)
    here, grad = on(device, tensors), grad.to(device)
    first, second = (test_gmm_linear.run(here, grad, backend="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
