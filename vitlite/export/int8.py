"""Matrix products of transformer blocks and of a bank in 8-bit integers, in a model of OpenVINO. Never imports torch.

The weights are whole numbers from -127 to 127 with a scale for each ``GROUP`` inputs of an output. If the processor
multiplies such numbers, OpenVINO makes them of the other factor too, while it scores: ``GROUP`` numbers of a token have
a scale. All else stays in float32: the backbone, the layers before and after the blocks, attention, norms, residuals,
the distances to the rows of the bank that are found, and the map.

Good images show what comes to a product, and two things make its error smaller (:func:`fitted`). The mean of what comes
is taken away before it is rounded, as its product with the weights is a constant. And the rounding of each weight makes
up for the roundings before it, as far as their inputs go together (Frantar et al., 2023).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitlite.errors import UserError

GROUP = 64
# What OpenVINO reads from the file, whichever program compiles it.
OPTION = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]
DAMPING = 0.01  # of the mean variance of the inputs, which is added to each: Frantar et al., 2023, Section 3.3


@dataclass(frozen=True)
class Product:
    """The weights of a product in 8-bit integers, and what is taken from its inputs."""

    whole: np.ndarray  # int8 (outputs, groups, inputs of a group)
    scales: np.ndarray  # float32 (outputs, groups, 1)
    middle: np.ndarray | None = None  # float32 (inputs,): the mean of good images
    constant: np.ndarray | None = None  # float32 (outputs,): the product of ``middle`` with the weights


def folded(model: Any) -> Any:
    """A model in which weights that the graph still slices or transposes are constants: changed and given back."""
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    return model


def products(model: Any, layers: Sequence[np.ndarray]) -> list[tuple[Any, np.ndarray]]:
    """The products of a folded model with these linear layers, in order, and their weights (outputs, inputs).

    ``layers`` are the weights (outputs, inputs), float32. A product may have some of the outputs of a layer alone.
    """
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        weights = node.input_value(1).get_node().data
        if weights.ndim != 2:
            continue
        weights = weights if node.get_attributes()["transpose_b"] else weights.T
        if any(holds(layer, weights) for layer in layers):
            found.append((node, weights))
    return found


def plain(onnx: bytes, layers: Sequence[np.ndarray]) -> dict[str, Product]:
    """The products of an ONNX file with these layers, by name, each weight as the nearest whole number."""
    import openvino

    found = products(folded(openvino.Core().read_model(onnx)), layers)
    return {node.get_friendly_name(): Product(*rounded(weights)) for node, weights in found}


def fitted(
    onnx: bytes, parts: Mapping[str, Sequence[np.ndarray]], images: Iterable[np.ndarray]
) -> dict[str, dict[str, Product]]:
    """For each part, which is some layers, its products in an ONNX file by name, such that their errors are small.

    ``images`` are good ones, uint8 (B, height, width, 3), as the network sees them. ``UserError`` without any.
    """
    import openvino
    import openvino.opset13 as ops

    core = openvino.Core()
    model = folded(core.read_model(onnx))
    model.reshape([1, *list(model.input(0).partial_shape)[1:]])
    found = [(part, *one) for part, layers in parts.items() for one in products(model, layers)]
    wanted, rows = [], []
    for _, node, weights in found:
        came = node.input_value(0)
        seen = ops.reshape(came, ops.constant(np.array([-1, weights.shape[1]], np.int64)), False)
        rows.append(int(np.prod(list(came.get_shape())[:-1])))
        wanted.append(ops.result(ops.reduce_mean(seen, ops.constant(np.int64(0)))))
        wanted.append(ops.result(ops.matmul(seen, seen, True, False)))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(openvino.Model(wanted, model.get_parameters()), "CPU", hints)
    sums, count = [np.zeros(()) for _ in wanted], 0
    for image in (image for batch in images for image in batch):
        sums = [total + new for total, new in zip(sums, compiled([image[None]]).values())]
        count += 1
    if not count:
        raise UserError("no good image can be read; give others with `check`")
    result: dict[str, dict[str, Product]] = {part: {} for part in parts}
    for (part, node, weights), size, mean, squares in zip(found, rows, sums[::2], sums[1::2]):
        middle = (mean / count).astype(np.float32)
        spread = squares.astype(np.float64) / (count * size) - np.outer(middle, middle.astype(np.float64))
        constant = (weights.astype(np.float64) @ middle).astype(np.float32)
        result[part][node.get_friendly_name()] = Product(*rounded(weights, spread), middle, constant)
    return result


def lower(model: Any, changed: Mapping[str, Product]) -> None:
    """Change the products of these names to 8-bit integers. ``ValueError`` if the model has not all of them."""
    import openvino.opset13 as ops

    nodes = {node.get_friendly_name(): node for node in folded(model).get_ordered_ops()}
    for name, product in changed.items():
        if name not in nodes:
            raise ValueError(f"no product {name}")
        node, whole, scales = nodes[name], product.whole, product.scales
        shape = np.array([len(whole), -1], np.int64)
        if whole.shape[1] == 1:
            whole, scales = whole[:, 0], scales[:, 0]
        both = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scales))
        if whole.ndim > 2:
            both = ops.reshape(both, ops.constant(shape), False)
        came = node.input_value(0)
        if product.middle is not None:
            came = ops.subtract(came, ops.constant(product.middle)).output(0)
        result = ops.matmul(came, both, False, True)
        if product.constant is not None:
            result = ops.add(result, ops.constant(product.constant))
        node.output(0).replace(result.output(0))
    model.validate_nodes_and_infer_types()
    model.set_rt_info(str(GROUP), OPTION)


def rounded(weights: np.ndarray, spread: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weights (outputs, inputs) as int8 (outputs, groups, inputs of a group), and scales (outputs, groups, 1).

    There is one group if ``GROUP`` does not divide the inputs: products with smaller ones take as long as in float32.

    ``spread`` (inputs, inputs) is the covariance of the inputs. With it the error of each weight is made up for by
    those that are rounded after it; without it each is the nearest number.
    """
    outputs, inputs = weights.shape
    size = inputs if inputs % GROUP else GROUP
    left = weights.astype(np.float64)
    upper = np.eye(inputs)
    if spread is not None and np.trace(spread) > 0:
        damped = spread + DAMPING * np.trace(spread) / inputs * np.eye(inputs)
        upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    whole, scales = np.empty((outputs, inputs)), np.empty((outputs, inputs // size))
    for i in range(inputs):
        group = i // size
        if i % size == 0:
            most = np.abs(left[:, i : i + size]).max(axis=1)
            scales[:, group] = np.maximum(most / 127, np.finfo(np.float32).tiny).astype(np.float32)
        whole[:, i] = np.clip(np.round(left[:, i] / scales[:, group]), -127, 127)
        error = (left[:, i] - whole[:, i] * scales[:, group]) / upper[i, i]
        left[:, i + 1 :] -= np.outer(error, upper[i, i + 1 :])
    return whole.astype(np.int8).reshape(outputs, -1, size), scales.astype(np.float32)[..., None]


def holds(layer: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the weights are those of a layer, or of consecutive outputs of it."""
    if layer.shape[1:] != weights.shape[1:] or len(weights) > len(layer):
        return False
    begins = np.flatnonzero((layer[: len(layer) - len(weights) + 1] == weights[0]).all(axis=1))
    return any(np.array_equal(layer[begin : begin + len(weights)], weights) for begin in begins)
