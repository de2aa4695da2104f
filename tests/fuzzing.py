"""Damaged files for the tests of readers. VITLITE_FUZZ=N runs N random examples a test in place of a fixed few."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_ASKED = os.environ.get("VITLITE_FUZZ")
few_examples = settings(
    max_examples=int(_ASKED or 200),
    derandomize=not _ASKED,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)


@st.composite
def damaged(draw, content, header=64):
    """``content`` with some bytes overwritten, more often within its header, removed, repeated, put in, or cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        limit = min(len(changed), header) if draw(st.booleans()) else len(changed)
        at = draw(st.integers(0, max(0, limit - 1)))
        kind = draw(st.sampled_from(("byte", "bytes", "remove", "repeat", "insert", "cut")))
        if kind == "byte" and changed:
            changed[at] = draw(st.integers(0, 255))
        elif kind == "bytes":
            part = draw(
                st.sampled_from((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff" * 8))
            )
            changed[at : at + len(part)] = part
        elif kind == "remove":
            del changed[at : at + draw(st.integers(1, 20))]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + draw(st.integers(1, 200))]
        elif kind == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "cut":
            del changed[at:]
    return bytes(changed)


def attempt(read, error_type):
    """``(what read() returns, None)``, or ``(None, its error)`` of the documented type; any other error passes."""
    try:
        return read(), None
    except error_type as error:
        return None, error
