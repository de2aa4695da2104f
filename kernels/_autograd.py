"""What the autograd functions of the operators share."""

import torch


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
        results = function(*inputs)
        wanted = [value for value, need in zip(inputs, needs) if need]
        found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True))
    return tuple(next(found) if need else None for need in needs)


def wants_second_derivatives():
    """Inside a backward pass: whether it is to be recorded. A compiled graph never is."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()
