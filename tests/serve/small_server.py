"""A model that loads at once, and a server of its own process."""

import contextlib
import http.client
import io
import json
import re
import signal
import subprocess
import sys

import numpy as np
from PIL import Image

SIDE = 32
GOOD, BAD, THRESHOLD = 60, 200, 0.5  # grey levels of the images below, and the model's threshold


def write_model(path, regions=None, **calibration):
    """An ONNX file as `vitlite export` writes it: the map is the brightness of a pixel, the score its maximum.

    It looks at ``regions``, or everywhere.
    """
    import onnx
    from onnx import TensorProto, helper

    from vitlite.export.metadata import INPUT, KEY, MAPS, SCORES

    nodes = [
        helper.make_node("Cast", [INPUT], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "white"], ["shares"]),
        helper.make_node("ReduceMean", ["shares", "colours"], [MAPS], keepdims=0),
        helper.make_node("ReduceMax", [MAPS, "pixels"], [SCORES], keepdims=0),
    ]
    constants = [
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("colours", TensorProto.INT64, [1], [3]),
        helper.make_tensor("pixels", TensorProto.INT64, [2], [1, 2]),
    ]
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    maps = helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, ["batch", SIDE, SIDE])
    scores = helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "brightness", [images], [maps, scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata = {
        "format": 1,
        "image_size": SIDE,
        "input": {"regions": None if regions is None else regions.as_json()},
        "calibration": {
            "image_threshold": THRESHOLD,
            "pixel_threshold": THRESHOLD,
            "good_scores": [0.2 + 0.01 * i for i in range(20)],
            "display": {"low": 0.0, "high": 1.0},
            "min_area": 0,
            **calibration,
        },
    }
    helper.set_model_props(model, {KEY: json.dumps(metadata)})
    onnx.save(model, path)
    return path


def image(level=GOOD, spot=None, size=(48, 64), kind="PNG"):
    """The bytes of an image of one grey level, with a square spot of another."""
    pixels = np.full((*size, 3), level, np.uint8)
    if spot is not None:
        pixels[8:24, 16:32] = spot
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def heed_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """`vitlite serve` in a process of its own."""

    def __init__(self, *arguments, env=None):
        # A worker has all the time that it needs, also to start anew on a machine with much to do.
        command = [sys.executable, "-m", "vitlite", "serve", "--port", "0", "--timeout", "3600", *map(str, arguments)]
        pipe = subprocess.PIPE
        # If the tests run in the background of a shell, they ignore SIGINT, and so would the server.
        self.process = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=env, preexec_fn=heed_interrupts
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)/", line)
        assert found, (line, *self.process.communicate())
        self.host, self.port = found[1], int(found[2])
        self.url = found[0]

    def connect(self):
        """A connection that stays."""
        return http.client.HTTPConnection(self.host, self.port)

    def ask(self, path, body=None, method=None, connection=None, **headers):
        """(status, what the answer holds, its headers) of a request."""
        own = connection or self.connect()
        own.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = own.getresponse()
        data = answer.read()
        if connection is None:
            own.close()
        if answer.headers.get_content_type() == "application/json":
            data = json.loads(data)
        return answer.status, data, answer.headers

    def meter(self, name):
        """The value of a line of /metrics."""
        text = self.ask("/metrics")[1].decode()
        return float(re.search(rf"^vitlite_{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    def workers(self):
        """The process ids of the workers."""
        text = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(word) for word in text.stdout.split()]

    def end(self, number=signal.SIGTERM):
        """(exit code, what it printed on standard error) after a signal."""
        self.process.send_signal(number)
        _, err = self.process.communicate()
        return self.process.returncode, err


@contextlib.contextmanager
def serving(*arguments, env=None):
    """A server for the block."""
    server = Server(*arguments, env=env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()
