"""SIGTERM as an exception, so that a grid ends as tidily by it as by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from unifocal.lab.errors import Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated in this block when SIGTERM comes; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def terminate(*_: object) -> NoReturn:
    raise Terminated
