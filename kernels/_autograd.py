"""What the autograd functions of the operators share."""

import contextlib

import torch

_is_exporting = getattr(torch.compiler, "is_exporting", None)  # torch 2.7 and later


def differentiable_gradients(function, inputs, needs, grads):
    """Gradients that can be differentiated again (``create_graph=True``): eager torch knows how, the kernels do not.

    Args:
        function: the operator in eager torch.
        inputs: its arguments, tensors or None.
        needs: for each input, whether its gradient is wanted.
        grads: gradients of the results.

    Returns:
        A gradient for each input, None where it is not wanted.
    """
    with torch.enable_grad():
        # Views of their own: where one input was made of another, its gradient must not reach the other in here, since
        # it will on its way through the graph outside.
        own = [value if value is None else value.view_as(value) for value in inputs]
        results = function(*own)
        wanted = [value for value, need in zip(own, needs) if need]
        found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True))
    return tuple(next(found) if need else None for need in needs)


def autocasts(device):
    """Whether autocast is on for a device type; of some, such as "meta", torch will not be asked."""
    return device != "meta" and torch.is_autocast_enabled(device)


def without_autocast(device):
    """A context in which autocast is off for this device type."""
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def exporting():
    """Whether torch.export is tracing, which has to hold for every shape that it was told of."""
    return _is_exporting is not None and _is_exporting()


def wants_second_derivatives():
    """Inside a backward pass: whether it is to be recorded. A compiled graph never is."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()
