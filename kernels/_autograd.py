"""What the registered operators do about gradients if they are called by themselves: the right ones, or an error."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._backends import transformed


def below_autograd(operator: Any) -> Callable:
    """The registered operator without a look at gradients, for callers that have settled them: it costs less."""

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return operator(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return call


def without_derivative(operator: Callable, name: str) -> Any:
    """An autograd.Function of an operator that has no derivative: who asks for one gets an error."""

    class WithoutDerivative(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            return operator(*arguments)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            raise RuntimeError(f"the backward pass of {name} has no derivative of its own; call {name} itself")

    return WithoutDerivative


def recording(operator: Any, function: Any) -> Callable:
    """What a registered operator does that is called where gradients may be wanted: it records ``function`` then."""
    bare = below_autograd(operator)

    def kernel(*arguments: Any) -> Any:
        if transformed():
            name = operator._schema.name
            raise RuntimeError(f"{name} has no torch.func and no forward mode; call the public function, uncompiled")
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            return function.apply(*arguments)
        return bare(*arguments)

    return kernel
