"""The server under load: every request gets its answer, or a 503 after which it is sent again."""

import collections
import os
import random
import re
import signal
import threading
import time

import pytest
from small_server import image, serving

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("onnxruntime")

GARBAGE = (b"", b"no image", image(200)[:-40], image()[:60] + bytes(400), b"\xff\xd8\xff\xe0" + bytes(99))


class Load:
    """Clients that send images and, one time in ten, what is none."""

    def __init__(self, server, seed):
        self.server, self.seed = server, seed
        self.found = collections.Counter()
        self.left = 0
        self._lock = threading.Lock()

    def run(self, requests, clients, kill_after=()):
        """Send so many requests; a worker is killed each time that so many are left."""
        self.left, kills = requests, sorted(kill_after)
        threads = [threading.Thread(target=self.client, args=(self.seed + i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if kills and self.left <= kills[-1]:
                kills.pop()
                os.kill(self.server.workers()[0], signal.SIGKILL)
            time.sleep(0.01)
        self.seed += clients
        assert not kills

    def take(self):
        with self._lock:
            self.left -= 1
            return self.left >= 0

    def client(self, seed):
        chance, connection = random.Random(seed), self.server.connect()
        while self.take():
            level, bad, path = chance.randrange(256), chance.random() < 0.1, chance.choice(("/score", "/score?map=1"))
            body = chance.choice(GARBAGE) if bad else image(level, size=(chance.randrange(8, 80), 64))
            while True:
                status, answer, headers = self.server.ask(path, body, connection=connection)
                self.found[status] += 1
                if status != 503:
                    break
                assert int(headers["retry-after"]) >= 1
                time.sleep(0.05)
            expected = None if bad else "defect" if level / 255 > 0.5 else "good"
            if (status, answer.get("verdict")) != (422 if bad else 200, expected):
                self.found["wrong"] += 1
        connection.close()


def test_500_requests(model):
    with serving(model, "--queue", 4) as server:
        load = Load(server, seed=1)
        load.run(500, clients=4, kill_after=(250,))
        assert load.found[200] + load.found[422] == 500
        assert set(load.found) <= {200, 422, 503}
        assert server.meter("worker_restarts_total") == 1
        text = server.ask("/metrics")[1].decode()
        counted = {int(s): int(n) for s, n in re.findall(r'path="/score",status="(\d+)"} (\d+)', text)}
        assert counted == load.found
        assert server.meter("answer_seconds_count") == load.found[200]


@pytest.mark.slow
def test_10000_requests_by_8_clients(model):
    """After the first 1,000 the memory of the server and its worker grows by less than 5 %."""

    def memory():
        return sum(map(int, re.findall(r"resident_bytes\{.*\} (\d+)", server.ask("/metrics")[1].decode())))

    with serving(model, "--queue", 16) as server:
        load = Load(server, seed=100)
        load.run(1000, clients=8)
        first = memory()
        load.run(8000, clients=8)
        last = memory()
        load.run(1000, clients=8, kill_after=(700, 400))
        assert load.found[200] + load.found[422] == 10_000
        assert set(load.found) <= {200, 422, 503}
        assert server.meter("worker_restarts_total") == 2
    assert last < 1.05 * first, (first, last)
