"""The public ``ssim``: checks its arguments, then hands them to a backend."""

import torch

from .. import _extension, _triton
from .._autograd import autocasts, differentiable_gradients, wants_second_derivatives
from .._backends import Backends
from .._checks import check_choice, check_positive, check_same_device, check_tensor, is_count
from .reference import ssim_torch

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

# Window deviation 0 stands for equal weights. Results are float32, or float64 for float64 images.
FORWARD = (
    "ssim_forward(Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same, int reduction)"
    " -> Tensor"
)
BACKWARD = (
    "ssim_backward(Tensor grad, Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same,"
    " int reduction, bool need_x, bool need_y) -> (Tensor, Tensor)"
)


def _fake_forward(x, y, window_size, sigma, data_range, same, reduction):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if reduction != REDUCTIONS["none"]:
        return x.new_empty((), dtype=dtype)
    cut = 0 if same else window_size - 1
    batch, channels, height, width = x.shape
    return x.new_empty((batch, channels, height - cut, width - cut), dtype=dtype)


def _fake_backward(grad, x, y, window_size, sigma, data_range, same, reduction, need_x, need_y):
    return x.new_empty(x.shape if need_x else (0,)), y.new_empty(y.shape if need_y else (0,))


_extension.define(FORWARD, _fake_forward)
_extension.define(BACKWARD, _fake_backward)

BACKENDS = {
    "ssim": Backends(
        "ssim",
        [
            ("cuda", "cuda", _extension.why_not("ssim_backward", "CUDA")),
            ("triton", "cuda", _triton.why_not("cuda")),
            ("cpp", "cpu", _extension.why_not("ssim_backward", "CPU")),
            ("eager", None, None),
            ("triton", "cpu", _triton.why_not("cpu")),
        ],
    ),
}

_forward = torch.ops.vitlite.ssim_forward.default
_backward = torch.ops.vitlite.ssim_backward.default
_triton_forward, _triton_backward = _triton.serve(((FORWARD, _fake_forward), (BACKWARD, _fake_backward)), __package__)

# A Triton program holds five sums a row of the window.
WIDEST_WINDOW = 25


class _SSIM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, window_size, sigma, data_range, same, reduction, triton):
        ctx.save_for_backward(x, y)
        ctx.backward_operator = _triton_backward if triton else _backward
        ctx.options = (window_size, sigma, data_range, same, reduction)
        return (_triton_forward if triton else _forward)(x, y, *ctx.options)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        need_x, need_y = ctx.needs_input_grad[:2]
        *options, reduction = ctx.options
        if wants_second_derivatives():

            def eager(x, y):
                return _reduce(ssim_torch(x, y, *options), reduction)

            grad_x, grad_y = differentiable_gradients(eager, (x, y), (need_x, need_y), grad)
        else:
            grad_x, grad_y = ctx.backward_operator(grad, x, y, *options, reduction, need_x, need_y)
        return grad_x if need_x else None, grad_y if need_y else None, *[None] * 6


def ssim(
    x,
    y,
    *,
    window_size=11,
    window="gaussian",
    sigma=1.5,
    data_range=1.0,
    padding="same",
    reduction="mean",
    backend="auto",
):
    """Structural similarity (Wang et al. 2004, eq. 13, K1 = 0.01, K2 = 0.03), 1 for equal images, at least -1.

    Args:
        x: images (B, C, H, W), float32, float64, float16 or bfloat16, of any strides.
        y: images of the same shape; another floating dtype is brought to the wider of the two.
        window_size: odd length of the window along each axis.
        window: "gaussian" with deviation ``sigma``, or "uniform".
        sigma: deviation of the Gaussian in pixels.
        data_range: difference between the largest and the smallest value that an image can have.
        padding: "same", zeros around the images and one value per pixel; or "valid", only windows inside.
        reduction: "mean" over all windows, images and channels, "sum", or "none" for the map
            (B, C, H, W), with "valid" (B, C, H - window_size + 1, W - window_size + 1).
        backend: "auto", "cpp" (compiled, CPU), "cuda" (compiled), "triton" (CUDA, windows up to 25) or "eager".

    Returns:
        The reduced value () or the map, in the wider dtype of the images, computed in float32 for half precision and
        returned so under autocast. Differentiable in x and y.

    Raises:
        ValueError: a wrong shape, dtype, device, option or backend; the message names the argument.
    """
    check_tensor("x", x, "(B, C, H, W)")
    check_tensor("y", y, "(B, C, H, W)")
    if x.shape != y.shape:
        raise ValueError(f"y: shape {tuple(y.shape)} differs from that of x, {tuple(x.shape)}")
    check_same_device("y", y, "x", x)
    _check_options(x, window_size, window, sigma, data_range, padding, reduction)
    window_size = window_size if isinstance(window_size, int) else int(window_size)
    device = x.device.type
    chosen = BACKENDS["ssim"].pick(backend, device)
    if chosen == "triton" and window_size > WIDEST_WINDOW:
        if backend == "triton":
            raise ValueError(f"window_size: {window_size} is more than the {WIDEST_WINDOW} of backend='triton'")
        chosen = "eager"
    triton = chosen == "triton"
    dtype = x.dtype
    if y.dtype != dtype:
        dtype = torch.promote_types(dtype, y.dtype)
        x, y = x.to(dtype), y.to(dtype)
    options = (window_size, float(sigma) if window == "gaussian" else 0.0, float(data_range), padding == "same")
    how = REDUCTIONS[reduction]
    if chosen == "eager":
        result = _reduce(ssim_torch(x, y, *options), how)
    elif torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        result = _SSIM.apply(x, y, *options, how, triton)
    else:
        result = (_triton_forward if triton else _forward)(x, y, *options, how)
    if result.dtype != dtype and not autocasts(device):
        result = result.to(dtype)
    return result


def _check_options(x, window_size, window, sigma, data_range, padding, reduction):
    if not is_count(window_size) or window_size % 2 == 0:
        raise ValueError(f"window_size: expected an odd number of pixels, got {window_size!r}")
    check_choice("window", window, ("gaussian", "uniform"))
    check_choice("padding", padding, ("same", "valid"))
    check_choice("reduction", reduction, REDUCTIONS)
    check_positive("sigma", sigma)
    check_positive("data_range", data_range)
    height, width = x.shape[2:]
    if height == 0 or width == 0:
        raise ValueError(f"x: shape {tuple(x.shape)} holds no pixels")
    if padding == "valid" and (height < window_size or width < window_size):
        raise ValueError(
            f"x: images of {height}x{width} are smaller than the window of {window_size}; "
            "use padding='same' or a smaller window_size"
        )


def _reduce(values, reduction):
    if reduction == REDUCTIONS["none"]:
        return values
    return values.mean() if reduction == REDUCTIONS["mean"] else values.sum()
