"""The CUDA kernels of ``ssim`` and ``gmm_log_likelihood`` against the oracles: on a GPU, and emulated on a processor.

test_cuda_emulated.py runs this file with the emulated kernels in the place of the processor's own.
"""

import os

import numpy as np
import pytest
import torch
from contract import assert_ssim_is_bounded

from vitlite import kernels
from vitlite.kernels.gmm.reference import (
    gmm_log_likelihood_grad_numpy,
    gmm_log_likelihood_numpy,
    gmm_log_likelihood_torch,
)
from vitlite.kernels.ssim.reference import ssim_numpy, ssim_torch

EMULATED = bool(os.environ.get("VITLITE_EMULATED_KERNELS"))
pytestmark = [] if EMULATED else [pytest.mark.gpu]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 6e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def place():
    """Device and backend that the compiled GPU kernels serve."""
    if EMULATED:
        assert kernels.backends("ssim")["auto"]["cpu"] == "cpp"
        return {"device": "cpu", "backend": "cpp"}
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for op in ("ssim", "gmm_log_likelihood"):
        if reason := kernels.backends(op)["unavailable"].get("cuda"):
            pytest.skip(reason)
    return {"device": "cuda", "backend": "cuda"}


def close(ours, right, dtype, scale=None):
    """Largest error relative to the largest value."""
    ours, right = (a.detach().double().cpu() if torch.is_tensor(a) else torch.from_numpy(a) for a in (ours, right))
    assert ours.shape == right.shape
    if not right.numel():
        return
    assert torch.isfinite(ours).all()
    scale = right.abs().max() if scale is None else scale
    assert (ours - right).abs().max() <= TOLERANCE[dtype] * max(float(scale), 1e-12)


def images(shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    y = (x + 0.3 * torch.rand(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return [a.to(dtype).to(device).requires_grad_() for a in (x, y)]


def check_ssim(x, y, place, reduction="mean", **options):
    """Value and both gradients against numpy and eager torch in float64."""
    dtype = x.dtype
    size, sigma = options.get("window_size", 11), options.get("sigma", 1.5)
    sigma = sigma if options.get("window", "gaussian") == "gaussian" else 0.0
    plain = (size, sigma, options.get("data_range", 1.0), options.get("padding", "same") == "same")
    ours = kernels.ssim(x, y, reduction=reduction, backend=place["backend"], **options)
    wide = [a.detach().cpu().double().requires_grad_() for a in (x, y)]
    right = ssim_torch(*wide, *plain)
    oracle = ssim_numpy(*(a.detach().numpy() for a in wide), *plain)
    reduced = {"mean": lambda a: a.mean(), "sum": lambda a: a.sum(), "none": lambda a: a}[reduction]
    close(ours, np.asarray(reduced(oracle)), dtype, 1.0 if reduction != "sum" else None)
    draw = torch.Generator().manual_seed(1)
    weights = torch.rand(right.shape if reduction == "none" else (), dtype=torch.float64, generator=draw)
    found = torch.autograd.grad(ours, (x, y), weights.to(ours))
    for grad, wanted in zip(found, torch.autograd.grad(reduced(right), wide, weights)):
        assert grad.dtype == dtype
        close(grad, wanted, dtype)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(2, 3, 13, 17), (1, 1, 70, 301), (1, 2, 97, 12)])
def test_ssim(place, shape, reduction, padding):
    check_ssim(*images(shape, device=place["device"]), place, reduction, padding=padding)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 9), (1, 3, 9, 1), (1, 1, 5, 4)])
def test_ssim_of_images_smaller_than_the_window(place, shape):
    check_ssim(*images(shape, device=place["device"]), place)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "options",
    [
        {"window": "uniform"},
        {"sigma": 3.0},
        {"data_range": 255.0},
    ],
)
def test_ssim_under_other_options(place, options, padding):
    x, y = images((2, 2, 21, 23), device=place["device"])
    if "data_range" in options:
        x, y = ((a.detach() * 255).requires_grad_() for a in (x, y))
    check_ssim(x, y, place, "none", padding=padding, **options)
    check_ssim(x, y, place, padding=padding, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_ssim_in_other_dtypes(place, dtype):
    for reduction in ("mean", "none"):
        check_ssim(*images((1, 2, 20, 180), dtype, place["device"]), place, reduction)


def test_ssim_refuses_other_windows(place):
    x, y = images((1, 2, 15, 30), device=place["device"])
    # The public function on a GPU; the operator itself, if it is emulated.
    with pytest.raises(RuntimeError if EMULATED else ValueError, match="window_size"):
        kernels.ssim(x, y, window_size=5, backend=place["backend"])


@pytest.mark.parametrize("need", [(True, False), (False, True)])
def test_ssim_with_one_gradient(place, need):
    x, y = images((1, 2, 15, 30), device=place["device"])
    both = torch.autograd.grad(kernels.ssim(x, y, backend=place["backend"]), (x, y))
    x, y = (a.detach().requires_grad_(wanted) for a, wanted in zip((x, y), need))
    (one,) = torch.autograd.grad(kernels.ssim(x, y, backend=place["backend"]), [a for a in (x, y) if a.requires_grad])
    close(one, both[need.index(True)], torch.float32)


def test_ssim_of_images_of_any_strides(place):
    base, _ = images((3, 24, 40, 2), device=place["device"])
    base = base.detach()
    for view in (
        base.permute(0, 3, 1, 2),
        base.permute(0, 3, 2, 1),
        base.transpose(1, 3)[..., 1:20],
        base[:, :1, ::2].expand(3, 4, 20, 2),
        base[..., :1].permute(0, 3, 1, 2),
    ):
        x = view.clone(memory_format=torch.preserve_format) if view.stride(0) else view
        y = (view * 0.9 + 0.05).detach()
        check_ssim(x.detach().requires_grad_(), y.requires_grad_(), place)
        strided = kernels.ssim(view, y.detach(), backend=place["backend"])
        dense = kernels.ssim(view.contiguous(), y.detach(), backend=place["backend"])
        assert torch.equal(strided, dense)


def test_ssim_of_equal_images_is_exactly_one(place):
    x, _ = images((2, 3, 33, 45), device=place["device"])
    x = x.detach() * 7 - 3
    result = kernels.ssim(x, x.clone(), reduction="none", backend=place["backend"])
    assert torch.equal(result, torch.ones_like(result))


def test_ssim_of_nearly_equal_images_is_at_most_one(place):
    assert_ssim_is_bounded(place["backend"], place["device"])


def test_ssim_of_no_images(place):
    x = torch.empty(0, 3, 12, 12, device=place["device"], requires_grad=True)
    total = kernels.ssim(x, x, reduction="sum", backend=place["backend"])
    assert total == 0
    assert torch.autograd.grad(total, x)[0].shape == x.shape


def test_ssim_is_the_same_every_time(place):
    x, y = images((2, 3, 80, 90), device=place["device"])
    results = {kernels.ssim(x, y, backend=place["backend"]).item() for _ in range(3)}
    assert len(results) == 1


def mixture(rows, components, dims, isotropic=False, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(rows + 10 * components + 100 * dims)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    std = 0.5 + torch.rand((rows, components, 1 if isotropic else dims), generator=generator, dtype=torch.float64)
    tensors = normal(rows, dims), normal(rows, components), 0.3 * normal(rows, components, dims), std
    return [a.to(dtype).to(device).requires_grad_() for a in tensors]


def check_gmm(tensors, place, dtype=None):
    dtype = dtype or tensors[0].dtype
    ours = kernels.gmm_log_likelihood(*tensors, backend=place["backend"])
    wide = [a.detach().double().cpu().numpy() for a in tensors]
    right = gmm_log_likelihood_numpy(*wide)
    close(ours, right, dtype)
    weights = torch.rand(ours.shape, dtype=torch.float64)
    found = torch.autograd.grad(ours, tensors, weights.to(ours))
    for grad, wanted in zip(found, gmm_log_likelihood_grad_numpy(weights.to(ours).double().cpu().numpy(), *wide)):
        close(grad, wanted, dtype)


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize(
    ("rows", "components", "dims"),
    [(1, 1, 1), (3, 4, 5), (2, 150, 30), (7, 3, 64), (2, 5, 512), (3, 2, 1100), (40, 3, 8), (1, 300, 4), (2, 3, 129)],
)
def test_gmm(place, rows, components, dims, isotropic):
    check_gmm(mixture(rows, components, dims, isotropic, device=place["device"]), place)


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_gmm_in_other_dtypes(place, dtype, isotropic):
    for dims in (48, 7):
        check_gmm(mixture(4, 5, dims, isotropic, dtype, place["device"]), place)


def test_gmm_of_one_mixture_for_all_rows(place):
    y, logits, mean, std = mixture(6, 5, 16, device=place["device"])
    mean, std = (a.detach()[:1].expand(6, 5, 16).requires_grad_() for a in (mean, std))
    check_gmm([y, logits, mean, std], place)


def test_gmm_of_tensors_of_any_strides(place):
    y, logits, mean, std = (a.detach() for a in mixture(6, 8, 12, device=place["device"]))
    wide = torch.cat([mean, mean], 2)
    for tensors in (
        (y.t().clone().t(), logits.t().clone().t(), mean.transpose(1, 2).clone().transpose(1, 2), std),
        (y[:, 1:9], logits, wide[:, :, 3:11], std[:, :, 1:9]),
        (y[::2], logits[::2], mean[::2], std[::2, :, :1]),
        (y[:, :8], logits[:, ::2], mean[:, ::2, :8], std[:, ::2, 4:]),
    ):
        check_gmm([a.detach().requires_grad_() for a in tensors], place)


@pytest.mark.parametrize("isotropic", [False, True])
def test_gmm_of_components_far_away(place, isotropic):
    y, logits, mean, std = (a.detach() for a in mixture(5, 6, 40, isotropic, device=place["device"]))
    mean[:, 1::2] += 50.0
    logits[:, 0] = -float("inf")
    tensors = [a.requires_grad_() for a in (y, logits, mean, std)]
    ours = kernels.gmm_log_likelihood(*tensors, backend=place["backend"])
    wide = [a.detach().cpu().double() for a in tensors]
    close(ours, gmm_log_likelihood_torch(*wide), torch.float32)
    grads = torch.autograd.grad(ours.sum(), tensors)
    assert all(torch.isfinite(g).all() for g in grads)
    assert not grads[2][:, :2].any()
    assert not grads[3][:, :2].any()


@pytest.mark.parametrize("isotropic", [False, True])
def test_gmm_of_extreme_deviations(place, isotropic):
    y, logits, mean, std = (a.detach() for a in mixture(4, 3, 200, isotropic, device=place["device"]))
    std[0], std[1], std[2] = 1e-12, 1e12, 3e-39
    mean = y[:, None] + std * mean
    if not isotropic:
        std[3, :, ::2] = 1e-30
        mean[3] = y[3]
    ours = kernels.gmm_log_likelihood(y, logits, mean, std, backend=place["backend"])
    right = gmm_log_likelihood_torch(*(a.cpu().double() for a in (y, logits, mean, std)))
    kept = [0, 1, 3]  # subnormal deviations may count as zero on a GPU
    assert torch.allclose(ours.cpu()[kept].double(), right[kept], rtol=1e-4)
    assert not ours[2].isnan()


@pytest.mark.parametrize("need", [0, 1, 2, 3])
@pytest.mark.parametrize("isotropic", [False, True])
def test_gmm_with_one_gradient(place, need, isotropic):
    tensors = mixture(4, 6, 24, isotropic, device=place["device"])
    all_of_them = torch.autograd.grad(kernels.gmm_log_likelihood(*tensors, backend=place["backend"]).sum(), tensors)
    tensors = [a.detach().requires_grad_(i == need) for i, a in enumerate(tensors)]
    ours = kernels.gmm_log_likelihood(*tensors, backend=place["backend"]).sum()
    (grad,) = torch.autograd.grad(ours, tensors[need])
    assert torch.equal(grad, all_of_them[need])


def test_gmm_without_rows(place):
    tensors = mixture(0, 3, 4, device=place["device"])
    ours = kernels.gmm_log_likelihood(*tensors, backend=place["backend"])
    assert ours.shape == (0,)
    assert [g.shape for g in torch.autograd.grad(ours.sum(), tensors)] == [a.shape for a in tensors]
