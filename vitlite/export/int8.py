"""Matrix products of transformer blocks and of a bank in 8-bit integers, in a model of OpenVINO. Never imports torch.

The weights are whole numbers from -127 to 127 with a scale for each ``GROUP`` inputs of an output. If the processor
multiplies such numbers, OpenVINO makes them of the other factor too, while it scores: ``GROUP`` numbers of a token have
a scale. All else stays in float32: the backbone, the layers before and after the blocks, attention, norms, residuals,
the distances to the rows of the bank that are found, and the map.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

GROUP = 64
# What OpenVINO reads from the file, whichever program compiles it.
OPTION = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]


def lower(model: Any, layers: Sequence[np.ndarray]) -> int:
    """Change the products of a model with these linear layers to 8-bit integers; returns how many there were.

    ``layers`` are the weights (outputs, inputs), float32. A product may have some of the outputs of a layer alone.
    """
    import openvino.opset13 as ops
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())  # weights that the graph still slices or transposes
    manager.run_passes(model)
    count = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        weights = node.input_value(1).get_node().data
        if weights.ndim != 2:
            continue
        weights = weights if node.get_attributes()["transpose_b"] else weights.T
        if any(holds(layer, weights) for layer in layers):
            whole, scales = rounded(weights)
            if whole.shape[1] == 1:
                whole, scales = whole[:, 0], scales[:, 0]
            both = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scales))
            if whole.ndim > 2:
                both = ops.reshape(both, ops.constant(np.array(weights.shape, np.int64)), False)
            node.output(0).replace(ops.matmul(node.input_value(0), both, False, True).output(0))
            count += 1
    model.validate_nodes_and_infer_types()
    model.set_rt_info(str(GROUP), OPTION)
    return count


def rounded(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (outputs, inputs) as int8 (outputs, groups, inputs of a group), and scales (outputs, groups, 1).

    There is one group if ``GROUP`` does not divide the inputs: products with smaller ones take as long as in float32.
    """
    outputs, inputs = weights.shape
    groups = weights.reshape(outputs, -1, inputs if inputs % GROUP else GROUP)
    scales = np.maximum(np.abs(groups).max(axis=2, keepdims=True) / 127, np.finfo(np.float32).tiny)
    return np.round(groups / scales).astype(np.int8), scales.astype(np.float32)


def holds(layer: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the weights are those of a layer, or of consecutive outputs of it."""
    if layer.shape[1:] != weights.shape[1:] or len(weights) > len(layer):
        return False
    begins = np.flatnonzero((layer[: len(layer) - len(weights) + 1] == weights[0]).all(axis=1))
    return any(np.array_equal(layer[begin : begin + len(weights)], weights) for begin in begins)
