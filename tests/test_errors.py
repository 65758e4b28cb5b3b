"""The end of a script: Jittor's compiling threads have come to wait for work by then."""

import hashlib
import threading
import time

import pytest

from models import errors
from models.errors import let_threads_settle


@pytest.mark.parametrize("busy_s, waits", [(0.0, False), (0.3, True)])
def test_the_end_waits_for_threads_that_run(busy_s, waits):
    """A hash of much data runs without Python's lock, as Jittor's threads do."""
    content, over = bytes(1 << 24), threading.Event()

    def work():
        until = time.monotonic() + busy_s
        while time.monotonic() < until:
            hashlib.sha256(content)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)
    started = time.monotonic()
    let_threads_settle()
    assert over.is_set()
    assert (time.monotonic() - started > 0.2) == waits
    thread.join()


def test_the_end_waits_a_second_at_most(monkeypatch):
    monkeypatch.setattr(errors, "_others_run", lambda: True)
    started = time.monotonic()
    let_threads_settle()
    assert 0.9 < time.monotonic() - started < 3
