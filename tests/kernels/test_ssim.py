"""ssim against its numpy oracle, other libraries, and itself under every option."""

import numpy as np
import pytest
import torch
from contract import assert_same_for_any_number_of_threads, assert_ssim_is_bounded

from vitlite.kernels import ssim
from vitlite.kernels.ssim.reference import ssim_numpy, ssim_torch

SHAPES = [(1, 1, 1, 1), (2, 3, 17, 33), (1, 2, 5, 70), (3, 1, 40, 16), (1, 1, 12, 530), (1, 1, 90, 11)]
BACKENDS = ["cpp", "eager"]


def images(shape, dtype=torch.float32, scale=1.0, requires_grad=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pair = [torch.rand(shape, generator=generator, dtype=torch.float64).mul(scale).to(dtype) for _ in range(2)]
    return [image.requires_grad_(requires_grad) for image in pair]


def oracle(x, y, window_size=11, window="gaussian", sigma=1.5, data_range=1.0, padding="same"):
    """The map and, by eager torch in float64, a function that gives its gradients."""
    x, y = (image.detach().double().requires_grad_() for image in (x, y))
    options = (window_size, sigma if window == "gaussian" else 0.0, data_range, padding == "same")
    values = ssim_torch(x, y, *options)
    expected = ssim_numpy(x.detach(), y.detach(), *options)
    # ssim_torch is the right thing to differentiate only because it agrees with the oracle.
    np.testing.assert_allclose(values.detach(), expected, atol=1e-9, rtol=1e-9)
    return torch.from_numpy(expected), lambda grad: torch.autograd.grad(values, (x, y), grad.double())


def worst(found, expected):
    return (found.double() - expected).abs().max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window_size", [11, 7, 1])
def test_map_and_gradients_are_as_exact_as_eager(level, shape, window_size, padding, dtype):
    if padding == "valid" and min(shape[2:]) < window_size:
        pytest.skip("no window fits")
    x, y = images(shape, dtype, requires_grad=True)
    options = {"window_size": window_size, "padding": padding}
    expected, expected_gradients = oracle(x, y, **options)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    reference = expected_gradients(grad)
    errors = {}
    for backend in BACKENDS:
        values = ssim(x, y, reduction="none", backend=backend, **options)
        assert values.dtype == dtype
        assert values.shape == expected.shape
        found = torch.autograd.grad(values, (x, y), grad)
        errors[backend] = worst(values.detach(), expected), *(worst(f, e) for f, e in zip(found, reference))
    # A window of one pixel has no variance, so that derivatives of about 1 / C2 cancel.
    scales = [1.0, *(1 / 9e-4 if window_size == 1 else max(1.0, g.abs().max().item()) for g in reference)]
    for ours, eager, scale in zip(errors["cpp"], errors["eager"], scales):
        assert ours <= 2 * eager + 20 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_reductions_and_their_gradients(compiled, backend, padding, reduction):
    x, y = images((2, 3, 30, 21), requires_grad=True)
    expected, expected_gradients = oracle(x, y, padding=padding)
    value = ssim(x, y, padding=padding, reduction=reduction, backend=backend)
    whole = expected.sum() if reduction == "sum" else expected.mean()
    assert value.shape == ()
    assert value.item() == pytest.approx(whole.item(), rel=2e-6)
    share = torch.ones_like(expected) / (1 if reduction == "sum" else expected.numel())
    for found, reference in zip(torch.autograd.grad(2 * value, (x, y)), expected_gradients(2 * share)):
        torch.testing.assert_close(found.double(), reference, rtol=1e-4, atol=1e-6 * reference.abs().max().item())


@pytest.mark.parametrize(
    "options", [{}, {"window_size": 3, "window": "uniform"}, {"padding": "valid", "window_size": 5}]
)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradcheck(compiled, options, reduction):
    x, y = images((1, 2, 7, 6), torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: ssim(a, b, reduction=reduction, **options), (x, y))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_agrees_with_pytorch_msssim(compiled, scale):
    msssim = pytest.importorskip("pytorch_msssim")
    x, y = images((2, 3, 48, 40), scale=scale)
    expected = msssim.ssim(x, y, data_range=scale)
    assert ssim(x, y, data_range=scale, padding="valid").item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_agrees_with_scikit_image(compiled, window):
    metrics = pytest.importorskip("skimage.metrics")
    x, y = images((1, 1, 37, 52), torch.float64)
    size = 11 if window == "gaussian" else 7
    gaussian = {"gaussian_weights": True, "sigma": 1.5} if window == "gaussian" else {"win_size": size}
    expected = metrics.structural_similarity(
        x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0, use_sample_covariance=False, **gaussian
    )
    found = ssim(x, y, window_size=size, window=window, padding="valid")
    assert found.item() == pytest.approx(expected, abs=1e-10)
    narrow = ssim(x.float(), y.float(), window_size=size, window=window, padding="valid")
    assert narrow.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(level, dtype):
    x, y = images((2, 2, 23, 39), dtype, requires_grad=True)
    expected, expected_gradients = oracle(x, y)
    values = ssim(x, y, reduction="none")
    assert values.dtype == dtype
    torch.testing.assert_close(values.detach().double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    grads = torch.autograd.grad(values, (x, y), torch.ones_like(values))
    for found, reference in zip(grads, expected_gradients(torch.ones_like(expected))):
        assert found.dtype == dtype
        # Rounded once, from float32; what is close to zero keeps float32's absolute error.
        torch.testing.assert_close(found.double(), reference, rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_every_half_number_is_read_and_written_right(level, dtype):
    """With a window of one pixel the gradient carries a number through both conversions."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype).view(1, 1, 256, 256).clone()
    x = torch.where(x.isfinite() & (x.abs() < 8), x, torch.zeros_like(x)).requires_grad_()
    y = torch.zeros_like(x)
    wide = x.detach().float().requires_grad_()
    (found,) = torch.autograd.grad(ssim(x, y, window_size=1, reduction="sum"), x)
    (reference,) = torch.autograd.grad(ssim(wide, y.float(), window_size=1, reduction="sum"), wide)
    assert torch.equal(found, reference.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch(compiled, backend):
    x, y = images((0, 3, 16, 16), requires_grad=True)
    assert ssim(x, y, reduction="none", backend=backend).shape == (0, 3, 16, 16)
    value = ssim(x, y, reduction="sum", backend=backend)
    assert value == 0
    assert torch.autograd.grad(value, x)[0].shape == x.shape
    for shape in ((0, 3, 16, 16), (2, 0, 16, 16)):
        with pytest.raises(ValueError, match=r"x: shape .* holds no images"):
            ssim(torch.zeros(shape), torch.zeros(shape), backend=backend)


def test_a_range_may_be_a_tensor():
    x, y = images((2, 3, 16, 16))
    expected = ssim(x, y, data_range=2.0)
    for given in (torch.tensor(2.0), torch.tensor([2], dtype=torch.int32)):
        assert torch.equal(ssim(x, y, data_range=given), expected)
    for given in (torch.tensor(-1.0), torch.tensor([1.0, 2.0])):
        with pytest.raises(ValueError, match="data_range"):
            ssim(x, y, data_range=given)


def test_equal_images_give_exactly_one(level):
    x, _ = images((1, 3, 50, 60), scale=255)
    assert (ssim(x, x.clone(), data_range=255, reduction="none") == 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rounding_does_not_leave_the_bounds(level, backend):
    assert_ssim_is_bounded(backend)


def test_flat_images_and_bounds(compiled):
    flat = torch.full((1, 1, 20, 20), 0.3)
    assert ssim(flat, flat + 0.5, padding="valid", reduction="none").unique().numel() >= 1
    expected = ssim_numpy(flat, flat + 0.5, same=False)
    np.testing.assert_allclose(ssim(flat, flat + 0.5, padding="valid", reduction="none"), expected, atol=1e-3)
    x, _ = images((1, 1, 20, 20))
    assert -1 <= ssim(x, 1 - x).item() < 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("window_size", [11, 5])
def test_a_bad_pixel_spoils_its_windows_and_no_others(level, value, window_size):
    x, y = images((2, 1, 40, 45), requires_grad=True)
    with torch.no_grad():
        x[0, 0, 20, 22] = value
    half = window_size // 2
    values = ssim(x, y, window_size=window_size, reduction="none")
    spoiled = torch.zeros(values.shape, dtype=torch.bool)
    spoiled[0, 0, 20 - half : 21 + half, 22 - half : 23 + half] = True
    assert torch.equal(values.isnan(), spoiled)
    (grad,) = torch.autograd.grad(values, x, torch.ones_like(values))
    reached = torch.zeros(values.shape, dtype=torch.bool)
    reached[0, 0, 20 - 2 * half : 21 + 2 * half, 22 - 2 * half : 23 + 2 * half] = True
    assert torch.equal(grad.isnan(), reached)
    assert ssim(x, y).isnan()


def test_scratch_memory_of_a_bad_call_does_not_leak(level):
    x, y = images((1, 2, 33, 29), requires_grad=True)
    before = ssim(x, y, reduction="none")
    grads = torch.autograd.grad(before.sum(), (x, y))
    bad = torch.full((8, 4, 64, 64), float("nan"), requires_grad=True)
    ssim(bad, bad.detach()).backward()
    after = ssim(x, y, reduction="none")
    assert torch.equal(before, after)
    for old, new in zip(grads, torch.autograd.grad(after.sum(), (x, y))):
        assert torch.equal(old, new)


def test_same_result_for_any_number_of_threads(compiled):
    x, y = images((1, 2, 300, 64), requires_grad=True)

    def run():
        value = ssim(x, y)
        return value.detach(), *torch.autograd.grad(value, (x, y))

    assert_same_for_any_number_of_threads(run)
