"""What bench/gpu.sh times, what each case must at least move and compute, and the bars it is held against.

The bars are for an H100 or H200. A "copy" bar is a part of the bandwidth that a large copy reaches on the same card, a
"matrix" bar a part of the rate of a large matrix product in the case's precision, "memory" a part of the other's peak
memory; all others are the time of the contender over ours.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import torch

from ..kernels import ssim
from ..kernels.ssim.reference import ssim_torch
from . import _op_attention, _op_gmm, _op_memory, _op_ssim

PHASES = ("forward", "both")  # "both" is forward and backward


@dataclass
class GpuCase:
    """One comparison on the GPU.

    Args:
        case: what is computed, by whom, and against which reference.
        dtype: of the tensors.
        precision: of the matrix products, "float32", "tf32" or "bfloat16"; None where there are none.
        bars: (phase, what) -> the least that passes, for "memory" the most.
        instructions: of one thread, for each number of threads' work together; None where bytes or matrix products
            set the pace.
        compiled: whether torch.compile of the eager form is a contender.
    """

    case: object
    dtype: torch.dtype = torch.float32
    precision: str | None = None
    bars: dict = field(default_factory=dict)
    instructions: tuple = (None, None)
    compiled: bool = True

    @property
    def label(self):
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.case.name} {dtype}" + (f" {self.precision}" if self.precision not in (None, dtype) else "")


def cast(case, dtype, traffic_bytes=None):
    """The case with tensors of another dtype; its traffic is counted for four bytes a number unless given."""

    def inputs(make, device):
        return [t.detach().to(dtype).requires_grad_(t.requires_grad) for t in make(device)]

    size = torch.empty(0, dtype=dtype).element_size()
    traffic = traffic_bytes or tuple(count * size // 4 for count in case.traffic)
    check = case.check_inputs and partial(inputs, case.check_inputs)
    tolerance = case.tolerance if dtype == torch.float32 else 4e-2
    return replace(case, inputs=partial(inputs, case.inputs), check_inputs=check, traffic=traffic, tolerance=tolerance)


def ssim_map(shape):
    """The map instead of its mean: twelve bytes a pixel instead of eight, for the same arithmetic."""
    case = _op_ssim._case(shape, "same", "large")
    pixels = torch.Size(shape).numel()
    return replace(
        case,
        name=case.name + " map",
        contenders={"vitlite": partial(ssim, reduction="none"), "eager": ssim_torch},
        reference=ssim_torch,
        traffic=(12 * pixels, 12 * pixels + 16 * pixels),
    )


def ssim_cases():
    shape = (32, 3, 512, 512)
    pixels = torch.Size(shape).numel()
    # Instructions of a thread for one pixel, counted in the machine code for sm_90, halos included: forward 575 for
    # eight rows of a column and 300 for four places of the map, backward the same again with the derivatives.
    work = (155 * pixels, 155 * pixels + 360 * pixels)
    bars = {("forward", "copy"): 0.8, ("forward", "eager"): 5}
    small = _op_ssim._case((8, 3, 256, 256), "valid", "large")
    return [
        GpuCase(ssim_map(shape), bars=bars, instructions=work),
        GpuCase(_op_ssim._case(shape, "same", "large"), bars=bars, instructions=work),
        GpuCase(cast(_op_ssim._case(shape, "same", "large"), torch.bfloat16), torch.bfloat16, instructions=work),
        GpuCase(replace(small, bars={})),
    ]


def mixture_cases():
    bars = {("forward", "copy"): 0.8, ("forward", "eager"): 5}
    large = _op_gmm._mixture_case(1024, 150, 512, "large")
    return [
        GpuCase(large, bars=bars),
        GpuCase(cast(large, torch.bfloat16), torch.bfloat16),
        GpuCase(_op_gmm._mixture_case(1024, 150, 512, "large", isotropic=True)),
    ]


def head_cases():
    bars = {("forward", "matrix"): 0.5, ("both", "memory"): 0.1}
    case = _op_gmm._head_case(2304, 150, 512, 512, "large")
    return [
        GpuCase(cast(case, torch.bfloat16), torch.bfloat16, "bfloat16", bars),
        GpuCase(replace(case, tolerance=5e-3), torch.float32, "tf32", bars),
        GpuCase(case, torch.float32, "float32", bars),
    ]


def memory_cases():
    bars = {(phase, "eager"): 3 for phase in PHASES} | {(phase, "torch.compile"): 1 for phase in PHASES}
    case = replace(_op_memory._case(4608, 2000, 768, "large"), bars={})
    return [
        GpuCase(case, torch.float32, "float32", bars),
        GpuCase(replace(case, tolerance=5e-3), torch.float32, "tf32", bars),
        GpuCase(cast(case, torch.bfloat16), torch.bfloat16, "bfloat16", bars),
    ]


def attention_cases():
    from ..kernels import attention
    from ..kernels.attention.op import BACKENDS

    bars = {(phase, "sdpa"): 0.9 for phase in PHASES}
    cases = []
    for shape in ((32, 12, 197, 64), (16, 12, 577, 64), (8, 12, 1025, 64), (16, 8, 577, 30)):
        case = replace(_op_attention._case(shape, "large"), bars={})
        contenders = dict(case.contenders)
        if "triton" in BACKENDS["attention"].describe()["available"]:
            # Our own kernels; what the public function picks is torch's.
            contenders["vitlite"] = partial(attention, backend="triton")
        case = replace(case, contenders=contenders)
        cases.append(GpuCase(cast(case, torch.bfloat16), torch.bfloat16, "bfloat16", bars))
    return cases


# Operator -> its cases, the most important first: the first case of every operator is timed before the second of any.
CASES = {
    "ssim": ssim_cases,
    "gmm_log_likelihood": mixture_cases,
    "memory_read": memory_cases,
    "linear_gmm_log_likelihood": head_cases,
    "attention": attention_cases,
}


def in_turn(names=CASES):
    """Cases of these operators, the first of each, then the second of each, and so on."""
    columns = [CASES[name]() for name in names]
    longest = max((len(column) for column in columns), default=0)
    return [column[i] for i in range(longest) for column in columns if i < len(column)]
