"""Every operator once on small shapes, forwards and backwards: what compute-sanitizer watches."""

import torch

from ..kernels import attention, backends, gmm_log_likelihood, linear_gmm_log_likelihood, memory_read, ssim


def functions(device):
    """Operator -> function of a backend's name that gives scalars to differentiate."""

    def rand(*shape):
        return torch.rand(*shape, device=device, requires_grad=True)

    return {
        "ssim": lambda b: (
            ssim(rand(2, 2, 37, 50), rand(2, 2, 37, 50), backend=b),
            ssim(rand(1, 1, 20, 21), rand(1, 1, 20, 21), window_size=7, reduction="none", backend=b).sum(),
        ),
        "gmm_log_likelihood": lambda b: (
            gmm_log_likelihood(rand(5, 64), rand(5, 7), rand(5, 7, 64), rand(5, 7, 64) + 0.5, backend=b).sum(),
            gmm_log_likelihood(rand(3, 5), rand(3, 4), rand(3, 4, 5), rand(3, 4, 1) + 0.5, backend=b).sum(),
        ),
        "memory_read": lambda b: (memory_read(rand(33, 40), rand(50, 40), backend=b)[0].sum(),),
        "linear_gmm_log_likelihood": lambda b: (
            linear_gmm_log_likelihood(
                rand(20, 16), rand(20, 8), rand(5, 16), rand(40, 16), rand(40, 16), backend=b
            ).sum(),
        ),
        "attention": lambda b: (
            attention(rand(1, 2, 40, 30), rand(1, 2, 40, 30), rand(1, 2, 40, 30), backend=b).sum(),
        ),
    }


def run():
    """With every backend of ours that the GPU has."""
    for op, function in functions("cuda").items():
        for backend in ("cuda", "triton"):
            if backend in backends(op)["available"]:
                for result in function(backend):
                    result.backward()
                torch.cuda.synchronize()
                print(op, backend, flush=True)
