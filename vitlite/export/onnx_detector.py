"""Scoring with an exported ONNX file: numpy, pillow and onnxruntime. Never imports torch."""

import numpy as np

from vitlite.export.exported import ExportedDetector, Session
from vitlite.export.metadata import INPUT, KEY, MAPS, SCORES


class OnnxDetector(ExportedDetector):
    """Scores with onnxruntime."""

    kind = "an ONNX model"
    package = "onnxruntime"

    def open(self) -> Session:
        """A session of the file."""
        return OnnxSession(self._data[0], self.threads)


class OnnxSession(Session):
    """An ONNX file, opened by onnxruntime on so many threads of the CPU; None: all."""

    def __init__(self, data: bytes, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised as well, and need to be said once
        options.intra_op_num_threads = threads or 0  # 0: all
        # Threads that wait by spinning take their core from the thread they wait for, if the cores have other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.metadata = self._session.get_modelmeta().custom_metadata_map.get(KEY)

    def fits(self, sides: tuple[int, int]) -> bool:
        """As for every session."""
        inputs = [(i.name, i.type, i.shape[1:]) for i in self._session.get_inputs()]
        outputs = {o.name for o in self._session.get_outputs()}
        return inputs == [(INPUT, "tensor(uint8)", [*sides, 3])] and {MAPS, SCORES} <= outputs

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As for every session."""
        maps, scores = self._session.run([MAPS, SCORES], {INPUT: pixels})
        return maps, scores
