"""A process that scores: it reads messages from its standard input and answers each on its standard output."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import IO

from vitlite.api import load
from vitlite.errors import UserError
from vitlite.serve import wire
from vitlite.serve.scoring import Scorer
from vitlite.serve.settings import Settings

log = logging.getLogger(__name__)


def main() -> None:
    """Load the model that the first message describes, then answer the others until the server closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server finishes what is under way, then closes the pipe
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    first = wire.receive(requests)
    if first is None:
        return
    folder = Path(first[0].pop("folder"))
    try:
        settings = Settings(**first[0])
        detector = load(settings.source, settings.device, max_megapixels=settings.max_megapixels)
        scorer = Scorer(detector, settings, folder)
        scorer.warm_up()
        wire.send(answers, {"ready": scorer.facts()})
        work(scorer, requests, answers)
    except UserError as error:
        wire.send(answers, {"refused": error.marked})
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a server that was killed does not


def work(scorer: Scorer, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer messages until the end of ``requests``."""
    while (message := wire.receive(requests)) is not None:
        head, body = message
        try:
            found, drawn = scorer.check(body) if head["want"] == "check" else scorer.answer(body, **head)
        except UserError as error:
            found, drawn = {"error": str(error), "status": 422}, b""
        except MemoryError:
            found, drawn = {"error": "the image does not fit into the memory of this machine", "status": 413}, b""
        except OSError as error:
            found, drawn = {"error": f"the server cannot keep the upload ({error.strerror})", "status": 507}, b""
        except Exception:
            log.exception("a mistake in vitlite: an upload of %d bytes has no answer", len(body))
            found, drawn = {"error": "a mistake in the server; its log says more", "status": 500}, b""
        try:
            wire.send(answers, found, drawn)
        except BrokenPipeError:  # the server is gone
            return


if __name__ == "__main__":
    main()
