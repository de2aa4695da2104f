"""What every operator has in common, once: schemas, registration, gradient, dtypes, and the table of its backends.

A room defines one ``Operator`` for each public function. The public function checks its arguments, chooses a backend,
and calls the operator with it.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table, register_decomposition

from . import _extension, _triton
from ._autograd import below_autograd, recording, without_derivative
from ._backends import Backends

# Those of an operator in the order of its arguments; the first is never None.
Tensors = Sequence[Any]

HALF = (torch.float16, torch.bfloat16)

_is_exporting = getattr(torch.compiler, "is_exporting", None)  # torch 2.7 and later


class Operator:
    """One fused operator: two registered operators, forward and backward, and what stands around them.

    The schemas say what is what. Forward takes tensors and options and returns the results of the public function,
    then what the backward pass wants to have kept. Backward takes the gradients of the results (their names begin with
    "grad"), the tensors, what was kept, options, and for each of the first tensors whether its gradient is needed. It
    returns a gradient for each tensor; one that is not needed is an empty tensor. The results are the same on every
    device.

    Args:
        name: the public function.
        forward: schema of the forward operator without its name, "(Tensor x, ...) -> (Tensor, ...)".
        backward: schema of the backward operator. Its options are the first ones of forward.
        fake_forward: function of the arguments of forward that returns empty tensors of the shapes and dtypes.
        fake_backward: the same for backward; None is ``empty_gradients``.
        eager: function of the tensors and the options of backward in eager torch.
        package: name of the calling package, for the import of the Triton launchers.
        launchers: module of the launchers inside the package: a function for forward and one for backward.
        compiled: dispatch keys for which there are compiled kernels, "CPU" and "CUDA".
        first: backends that come before all others and serve every device, such as torch's own.
        half: backends that take half precision as it is; the others get float32.
        prepare: function of the tensors, their widest dtype and the backend that returns the tensors for the kernels;
            None brings all of them to one dtype.
        shapes: function of sizes with defaults that returns the shapes of the tensors for a small call, see ``sample``.
        results: how many results the public function has, if some that have no gradient, such as indices, follow those
            that do. They may be kept as well.
        laid_out: function of the result of ``eager`` that gives it the strides of ``fake_forward``; None: it has them.
    """

    def __init__(
        self,
        name: str,
        *,
        forward: str,
        backward: str,
        fake_forward: Callable,
        eager: Callable,
        package: str,
        shapes: Callable[..., Sequence[tuple[int, ...]]],
        fake_backward: Callable | None = None,
        launchers: str = "triton",
        compiled: Sequence[str] = ("CPU",),
        first: Sequence[str] = (),
        half: Sequence[str] = ("cpp", "cuda", "triton"),
        prepare: Callable[[Tensors, torch.dtype, str], Tensors] | None = None,
        results: int | None = None,
        laid_out: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._laid_out = laid_out
        self.name, self.shapes, self.half, self.prepare = name, shapes, tuple(half), prepare
        schemas = f"{name}_forward{forward}", f"{name}_backward{backward}"
        self.signature = signature = _Signature(*schemas, results)
        fakes = fake_forward, fake_backward or signature.empty_gradients
        self._eager, self._fake_forward = eager, fake_forward

        if compiled:
            for schema, fake in zip(schemas, fakes):
                _extension.define(schema, fake)
        twins = _triton.serve(tuple(zip(schemas, fakes)), package, launchers)
        # Functions that record a gradient, and the operators without one, by backend.
        self.functions: dict[str, Any] = {}
        self.forwards: dict[str, Callable] = {}
        self._serve(("triton",), *twins)
        if compiled:
            pair = [getattr(_extension.OPS, f"{name}_{step}").default for step in ("forward", "backward")]
            self._serve([{"CPU": "cpp", "CUDA": "cuda"}[key] for key in compiled], *pair)
        self.backends = Backends(name, self._table(compiled, first))

    def _serve(self, backends: Sequence[str], forward: Any, backward: Any) -> None:
        """Lets two registered operators serve some backends, and gives them a gradient of their own.

        So a graph that holds them, or a direct call, has the right gradient or an error, never zeros.
        """
        pair = below_autograd(forward), below_autograd(backward)
        self.forwards.update(dict.fromkeys(backends, pair[0]))
        self.functions.update(dict.fromkeys(backends, _differentiable(*pair, self.eager, self.signature)))
        whole = _differentiable(*pair, self.eager, self.signature, whole=True)
        for operator, function in ((forward, whole), (backward, without_derivative(pair[1], self.name))):
            _extension.complete(operator._schema.name.partition("::")[2], recording(operator, function), "Autograd")
        if forward not in decomposition_table:  # another copy of the folder may have said it
            register_decomposition(forward)(self._in_eager_torch)

    def _in_eager_torch(self, *arguments: Any) -> Any:
        """All that the forward operator returns, by torch's own operators: what torch's exporter to ONNX makes of it.

        Nothing reads there what is kept for a backward pass; those results are zeros. If sizes are symbols, torch takes
        shapes and strides from here, and not from ``fake_forward``: they have to be the same.
        """
        results = self.eager(*arguments[: self.signature.tensors + self.signature.options])
        if self._laid_out is not None:
            results = self._laid_out(results)
        if self.signature.returns == 1:
            return results
        results = (results,) if isinstance(results, Tensor) else results
        return *results, *[torch.zeros_like(kept) for kept in self._fake_forward(*arguments)[len(results) :]]

    def _table(self, compiled: Sequence[str], first: Sequence[str]) -> list[tuple[str, str | None, str | None]]:
        table: list[tuple[str, str | None, str | None]] = [(backend, None, None) for backend in first]
        if "CUDA" in compiled:
            table.append(("cuda", "cuda", _extension.why_not(self.name, "CUDA")))
        table.append(("triton", "cuda", _triton.why_not("cuda") or _extension.conflict(f"triton_{self.name}")))
        if "CPU" in compiled:
            table.append(("cpp", "cpu", _extension.why_not(self.name, "CPU")))
        eager = ("eager", None, None)
        return [*table, eager, ("triton", "cpu", _triton.why_not("cpu") or _extension.conflict(f"triton_{self.name}"))]

    def __call__(self, backend: str, tensors: Tensors, *options: Any) -> Any:
        """The results of the public function, by one backend.

        Half precision is computed in float32. Results are in the widest dtype of the tensors, or under autocast as
        they were computed. Options that only forward has say what to keep for the backward pass; they are set to False
        if no gradient is recorded.
        """
        # Written for small calls: one look at each tensor, and nothing else if all have one full precision.
        given, mixed, wanted = tensors[0].dtype, False, False
        for a in tensors:
            if a is not None:
                mixed = mixed or a.dtype != given
                wanted = wanted or a.requires_grad
        if mixed or given in HALF or backend == "eager":
            return self._converted(backend, tensors, options)
        if wanted and torch.is_grad_enabled():
            return self.functions[backend].apply(*tensors, *options)
        return self._forward(backend, tensors, options)

    def _forward(self, backend: str, tensors: Tensors, options: Sequence[Any]) -> Any:
        signature = self.signature
        if signature.more:
            options = *options[: signature.options], *signature.more
        returned = self.forwards[backend](*tensors, *options)
        if signature.returns == 1:
            return returned
        return returned[0] if signature.results == 1 else tuple(returned[: signature.results])

    def _converted(self, backend: str, tensors: Tensors, options: Sequence[Any]) -> Any:
        dtype = reduce(torch.promote_types, [a.dtype for a in tensors if a is not None])
        if self.prepare is not None:
            tensors = self.prepare(tensors, dtype, backend)
        else:
            compute = dtype if backend in self.half else _triton.compute_type(dtype)
            tensors = [a if a is None or a.dtype == compute else a.to(compute) for a in tensors]
        if backend == "eager":
            results = self.eager(*tensors, *options[: self.signature.options])
        elif torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in tensors):
            results = self.functions[backend].apply(*tensors, *options)
        else:
            results = self._forward(backend, tensors, options)
        if autocasts(tensors[0].device.type):
            return results
        if self.signature.results == 1:
            return results.to(dtype)
        return tuple([a.to(dtype) if a.is_floating_point() else a for a in results])

    def eager(self, *arguments: Any) -> Any:
        """The operator in eager torch, at least in float32, out of autocast."""
        tensors, options = arguments[: self.signature.tensors], arguments[self.signature.tensors :]
        double = any(a is not None and a.dtype == torch.float64 for a in tensors)
        dtype = torch.float64 if double else torch.float32
        with without_autocast(tensors[0].device.type):
            return self._eager(*[a if a is None or a.dtype == dtype else a.to(dtype) for a in tensors], *options)

    def sample(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", **sizes: int
    ) -> list[Tensor]:
        """Tensors for a small call of the public function, numbers between 0.1 and 1.1; ``sizes`` are by name."""
        generator = torch.Generator().manual_seed(0)
        shapes = self.shapes(**sizes)
        drawn = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1 for shape in shapes]
        return [a.to(device=device, dtype=dtype) for a in drawn]


class _Signature:
    """What the schemas of forward and backward say of their arguments."""

    def __init__(self, forward: str, backward: str, results: int | None = None) -> None:
        ahead, back = (torch._C.parse_schema(schema) for schema in (forward, backward))
        names = [a.name for a in back.arguments]
        kinds = ["Tensor" in str(a.type) for a in back.arguments]
        self.tensors = sum("Tensor" in str(a.type) for a in ahead.arguments)
        self.grads = sum(name.startswith("grad") for name in names)
        self.results = self.grads if results is None else results
        self.kept = sum(kinds) - self.grads - self.tensors
        self.needs = sum(name.startswith("need_") for name in names)
        # Options of backward, which are the first ones of forward.
        self.options = len(names) - sum(kinds) - self.needs
        self.arguments = len(ahead.arguments)
        self.returns = len(ahead.returns)
        # The options that only forward has, as they are if no gradient is recorded.
        self.more = (False,) * (self.arguments - self.tensors - self.options)

    def empty_gradients(self, *arguments: Any) -> Any:
        """What a backward operator returns, without numbers: gradients like the tensors, or empty if not needed."""
        tensors = arguments[self.grads : self.grads + self.tensors]
        needs = arguments[len(arguments) - self.needs :]
        first = tensors[0]
        found = []
        for i, a in enumerate(tensors):
            if a is None:
                found.append(first.new_empty((0,)))
            else:
                found.append(a.new_empty(a.shape if i >= self.needs or needs[i] else (0,)))
        return tuple(found)


def _differentiable(
    forward: Callable, backward: Callable, eager: Callable, signature: _Signature, whole: bool = False
) -> Any:
    """An autograd.Function over two registered operators.

    Of the ways that torch has, this one costs the least for a small call: with ``setup_context`` a call takes three
    times as long, and a custom_op with a registered gradient four times. With ``whole`` it returns what is kept for the
    backward pass, too, as the registered operator does.
    """
    tensors, results, needed = signature.tensors, signature.results, signature.needs
    with_gradient = signature.grads
    kept, options = signature.returns - signature.kept, tensors + signature.options
    single, nothing = signature.returns == 1, (None,) * (signature.arguments - tensors)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            found = forward(*arguments)
            ctx.options = arguments[tensors:options]
            if single:
                ctx.save_for_backward(*arguments[:tensors])
                return found
            ctx.save_for_backward(*arguments[:tensors], *found[kept:])
            returned = signature.returns if whole else results
            if returned > with_gradient:
                ctx.mark_non_differentiable(*found[with_gradient:returned])
            if whole:
                return found
            return found[0] if results == 1 else found[:results]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            grads, needs = grads[:with_gradient], ctx.needs_input_grad[:tensors]
            if wants_second_derivatives():
                saved, numbers = ctx.saved_tensors[:tensors], ctx.options
                found = _differentiable_gradients(lambda *own: eager(*own, *numbers), saved, needs, grads)
            else:
                found = backward(*grads, *ctx.saved_tensors, *ctx.options, *needs[:needed])
                found = (found,) if isinstance(found, Tensor) else found
            return *[a if need else None for a, need in zip(found, needs)], *nothing

    return Differentiable


def _differentiable_gradients(
    function: Callable, inputs: Tensors, needs: Sequence[bool], grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again (``create_graph=True``): eager torch knows how, the kernels do not.

    Args:
        function: the operator in eager torch.
        inputs: its tensors, or None.
        needs: for each input, whether its gradient is needed.
        grads: gradients of the results.

    Returns:
        A gradient for each input, None if it is not needed.
    """
    with torch.enable_grad():
        # Views of their own: if one input was computed from another, its gradient must not reach the other in here,
        # since it does so on its way through the graph outside.
        own = [value if value is None else value.view_as(value) for value in inputs]
        results = function(*own)
        results = (results,) if isinstance(results, Tensor) else results[: len(grads)]
        wanted = [value for value, need in zip(own, needs) if need and value is not None]
        grads = [grad.to(result.dtype) for grad, result in zip(grads, results)]
        found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True))
    return tuple([next(found) if need else None for need in needs])


def autocasts(device: str) -> bool:
    """Whether autocast is on for a device type; torch cannot be asked for some, such as "meta"."""
    return device != "meta" and torch.is_autocast_enabled(device)


def without_autocast(device: str) -> contextlib.AbstractContextManager:
    """A context in which autocast is off for this device type."""
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def exporting() -> bool:
    """Whether torch.export is tracing; what it traces has to hold for every shape that it was told of."""
    return _is_exporting is not None and _is_exporting()


def wants_second_derivatives() -> bool:
    """Inside a backward pass: whether it is to be recorded. A compiled graph never is."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()
