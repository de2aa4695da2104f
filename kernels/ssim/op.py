"""The public ``ssim``: checks its arguments, then hands them to a backend."""

from typing import Any

from torch import Tensor

from .._checks import check_choice, check_positive, check_same_device, check_tensor, is_count
from .._operator import Operator
from .._triton import compute_type
from .reference import ssim_torch

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

# The compiled CUDA kernels are for one window; a Triton program holds five sums a row of the window.
CUDA_WINDOW, WIDEST_WINDOW = 11, 25


def _fake_forward(
    x: Tensor, y: Tensor, window_size: int, sigma: float, data_range: float, same: bool, reduction: int
) -> Tensor:
    if reduction != REDUCTIONS["none"]:
        return x.new_empty((), dtype=compute_type(x.dtype))
    cut = 0 if same else window_size - 1
    batch, channels, height, width = x.shape
    return x.new_empty((batch, channels, height - cut, width - cut), dtype=compute_type(x.dtype))


def _eager(
    x: Tensor, y: Tensor, window_size: int, sigma: float, data_range: float, same: bool, reduction: int
) -> Tensor:
    values = ssim_torch(x, y, window_size, sigma, data_range, same)
    if reduction == REDUCTIONS["none"]:
        return values
    return values.mean() if reduction == REDUCTIONS["mean"] else values.sum()


# A deviation of 0 stands for a window of equal weights. Results are float32, or float64 for float64 images.
OPERATOR = Operator(
    "ssim",
    forward="(Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same, int reduction) -> Tensor",
    backward="(Tensor grad, Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same,"
    " int reduction, bool need_x, bool need_y) -> (Tensor, Tensor)",
    fake_forward=_fake_forward,
    eager=_eager,
    package=__package__,
    compiled=("CPU", "CUDA"),
    shapes=lambda B=1, C=2, H=12, W=13: ((B, C, H, W), (B, C, H, W)),
)


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    window_size: int = 11,
    window: str = "gaussian",
    sigma: float = 1.5,
    data_range: float | Tensor = 1.0,
    padding: str = "same",
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13, K1 = 0.01, K2 = 0.03), 1 for equal images, at least -1.

    Args:
        x: images (B, C, H, W), float32, float64, float16 or bfloat16, of any strides.
        y: images of the same shape; another floating dtype is brought to the wider of the two.
        window_size: odd length of the window along each axis.
        window: "gaussian" with deviation ``sigma``, or "uniform".
        sigma: deviation of the Gaussian in pixels.
        data_range: difference between the largest and the smallest value that an image can have: a number, or outside
            of ``torch.compile`` a tensor of one, whose value is read.
        padding: "same", zeros around the images and one value per pixel; or "valid", only windows inside.
        reduction: "mean" over all windows, images and channels, of which there must be some; "sum"; or "none" for the
            map (B, C, H, W), with "valid" (B, C, H - window_size + 1, W - window_size + 1).
        backend: "auto", "cpp" (compiled, CPU), "cuda" (compiled, windows of 11), "triton" (CUDA, windows up to 25) or
            "eager".

    Returns:
        The reduced value () or the map, in the wider dtype of the images, computed in float32 for half precision and
        returned so under autocast. Differentiable in x and y.

    Raises:
        ValueError: a wrong shape, dtype, device, option or backend; the message names the argument.
    """
    check_tensor("x", x, "B", "C", "H", "W")
    check_tensor("y", y, "B", "C", "H", "W")
    if x.shape != y.shape:
        raise ValueError(f"y: shape {tuple(y.shape)} differs from that of x, {tuple(x.shape)}")
    check_same_device("y", y, "x", x)
    if isinstance(data_range, Tensor) and data_range.numel() == 1:
        data_range = data_range.item()
    _check_options(x, window_size, window, sigma, data_range, padding, reduction)
    window_size = window_size if isinstance(window_size, int) else int(window_size)
    chosen = OPERATOR.backends.pick(backend, x.device.type)
    if window_size != CUDA_WINDOW and chosen in ("cuda", "triton"):
        chosen = _for_window(window_size, chosen, backend)
    deviation = float(sigma) if window == "gaussian" else 0.0
    return OPERATOR(chosen, (x, y), window_size, deviation, float(data_range), padding == "same", REDUCTIONS[reduction])


def _for_window(window_size: int, chosen: str, backend: str) -> str:
    """The backend for a window of another length: Triton for the compiled CUDA kernels, and eager torch for Triton."""
    if chosen == "cuda":
        if backend == "cuda":
            raise ValueError(f"window_size: {window_size} is not the {CUDA_WINDOW} of backend='cuda'")
        chosen = OPERATOR.backends.choice.get(("triton", "cuda"), "eager")
    if chosen == "triton" and window_size > WIDEST_WINDOW:
        if backend == "triton":
            raise ValueError(f"window_size: {window_size} is more than the {WIDEST_WINDOW} of backend='triton'")
        chosen = "eager"
    return chosen


def _check_options(
    x: Tensor, window_size: int, window: str, sigma: float, data_range: Any, padding: str, reduction: str
) -> None:
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
    if reduction == "mean" and 0 in x.shape[:2]:
        raise ValueError(f"x: shape {tuple(x.shape)} holds no images, and nothing has no mean; use reduction='sum'")
    if padding == "valid" and (height < window_size or width < window_size):
        raise ValueError(
            f"x: images of {height}x{width} are smaller than the window of {window_size}; "
            "use padding='same' or a smaller window_size"
        )
