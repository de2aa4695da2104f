"""A trained method as one graph from 8-bit images to maps and scores, and that graph as the bytes of a file."""

import contextlib
import copy
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from vitlite.backbones import Backbone
from vitlite.errors import UserError
from vitlite.export.metadata import INPUT, KEY, MAPS, PT2_FILE, SCORES, dumps
from vitlite.methods.base import Method

OPSET = 18  # the oldest that torch's exporter writes directly, so the most runtimes read it
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "openvino": ("onnx", "onnxscript", "openvino")}


class Scorer(nn.Module):
    """uint8 images (B, H, W, 3) to the method's maps (B, H, W) and scores (B,), float32."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.method.anomaly(images.permute(0, 3, 1, 2).float() / 255)


def exportable(method: Method) -> Scorer:
    """A copy of a method, in float32 on the CPU, whose backbones are fused: see `Backbone.fused`."""
    twin = copy.deepcopy(method)
    twin.load_state_dict(method.state_dict())  # drops whatever the method has derived from its weights
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Backbone):
                setattr(parent, name, child.float().cpu().fused())
    return Scorer(twin.float().cpu()).eval().requires_grad_(False)


def trace(method: Method, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The exported program of a method for images of ``size`` (height, width) and any batch size."""
    example = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    # Without the context every no_grad inside becomes a sub-graph, which the verifier refuses.
    with quiet(), torch.no_grad():
        module = exportable(method)
        module(example)  # what a method makes on its first call would otherwise be made of traced tensors
        program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the source files of this machine
    return program


def to_onnx(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> bytes:
    """The bytes of an ONNX file, which pass onnx's own checker."""
    import onnx

    with quiet():
        written = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[MAPS, SCORES], opset_version=OPSET, verbose=False
        )
    assert written is not None  # as always with dynamo=True
    model = written.model_proto
    model.producer_name, model.producer_version = "vitlite", metadata["vitlite"]
    # The exporter writes the paths of this machine's source files into every node.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    name_batch(model.graph)
    onnx.helper.set_model_props(model, {KEY: dumps(metadata)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def name_batch(graph: Any) -> None:
    """Give the dynamic dimension the name ``batch`` in place of the exporter's symbol, also in shapes that use it."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = dim.dim_param.replace(symbol, "batch")


def to_pt2(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> bytes:
    """The bytes of a pt2 archive; the metadata are its extra file ``vitlite.json``."""
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files={PT2_FILE: dumps(metadata)})
    return file.getvalue()


def read_pt2(data: bytes) -> tuple[Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], str]:
    """``(score_pixels, metadata text)`` of a pt2 archive's bytes; score_pixels is as a detector's.

    Only for files that this process has made: torch.export.load is not safe for files of unknown origin.
    """
    extra: dict[str, Any] = {PT2_FILE: ""}
    with quiet():
        module = torch.export.load(io.BytesIO(data), extra_files=extra).module()

    def score_pixels(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            maps, scores = module(torch.from_numpy(pixels))
        return maps.numpy(), scores.numpy()

    text = extra[PT2_FILE]
    return score_pixels, text.decode("utf-8") if isinstance(text, bytes) else text


def require_packages(kind: str) -> None:
    """``UserError`` names the packages that a format needs and that are not installed."""
    missing = [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"`kind={kind}`: needs {', '.join(missing)}: pip install {' '.join(missing)}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence for the exporters, which warn about their own code and about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
