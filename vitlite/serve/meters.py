"""What a server counts, as text that Prometheus reads."""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

STEPS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Meters:
    """Requests by path and status, images by verdict, and how long answers took, waiting included."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.images: Counter[str] = Counter()
        self.seconds = 0.0
        self._within = [0] * (len(STEPS) + 1)

    def answered(self, verdict: str, seconds: float) -> None:
        """Count an image that has its verdict."""
        self.images[verdict] += 1
        self.seconds += seconds
        self._within[bisect_left(STEPS, seconds)] += 1

    def text(self, gauges: dict[str, tuple[str, float]], processes: Iterable[int]) -> str:
        """All of it; ``gauges`` has a meaning and a value by name, ``processes`` the workers' process ids."""
        return "\n".join(self._lines(gauges, processes)) + "\n"

    def _lines(self, gauges: dict[str, tuple[str, float]], processes: Iterable[int]) -> Iterator[str]:
        yield from head("requests_total", "counter", "Requests by path and status.")
        for (path, status), count in sorted(self.requests.items()):
            yield f'vitlite_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from head("images_total", "counter", "Images by verdict.")
        for verdict in ("good", "defect"):
            yield f'vitlite_images_total{{verdict="{verdict}"}} {self.images[verdict]}'
        yield from head("answer_seconds", "histogram", "Seconds from the end of an upload to its verdict.")
        total = 0
        for step, count in zip((*STEPS, "+Inf"), self._within):
            total += count
            yield f'vitlite_answer_seconds_bucket{{le="{step}"}} {total}'
        yield f"vitlite_answer_seconds_sum {self.seconds:.6f}"
        yield f"vitlite_answer_seconds_count {total}"
        for name, (meaning, value) in gauges.items():
            yield from head(name, "counter" if name.endswith("_total") else "gauge", meaning)
            yield f"vitlite_{name} {value:g}"
        yield from head("resident_bytes", "gauge", "Memory of the server and of its workers.")
        yield f'vitlite_resident_bytes{{process="server"}} {resident(os.getpid())}'
        for number, process in enumerate(processes):
            yield f'vitlite_resident_bytes{{process="worker {number}"}} {resident(process)}'


def head(name: str, kind: str, meaning: str) -> Iterator[str]:
    """The two lines before the values of a metric."""
    yield f"# HELP vitlite_{name} {meaning}"
    yield f"# TYPE vitlite_{name} {kind}"


def resident(process: int) -> int:
    """Bytes of memory that a process holds; 0 if the system does not say so, or the process is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
