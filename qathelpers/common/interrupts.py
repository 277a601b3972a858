"""Finish what must not be left half done before Ctrl-C takes effect."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Let the body of the `with` statement end before Ctrl-C raises KeyboardInterrupt; a second Ctrl-C takes effect.

    Outside the main thread, which alone gets signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, pending = signal.getsignal(signal.SIGINT), []
    if not callable(before):  # ignored, or set by a program that embeds Python
        yield
        return

    def remember(number: int, frame: object) -> None:
        if pending:
            before(number, frame)
        pending.append((number, frame))

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        before(*pending[0])
