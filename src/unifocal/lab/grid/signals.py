"""SIGTERM as an exception, so that a grid ends as tidily by it as by Ctrl-C; and steps that neither may cut in two."""

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


@contextmanager
def postponed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of this block; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in both]
    try:
        yield
    finally:
        for number, handler in zip(both, before, strict=True):
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def terminate(*_: object) -> NoReturn:
    raise Terminated
