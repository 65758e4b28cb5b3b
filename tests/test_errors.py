"""The end of a script: Jittor's compiling threads have come to wait for work by then."""

import hashlib
import threading
import time

from models import errors
from models.errors import let_threads_settle


def test_the_end_waits_for_a_thread_that_runs(monkeypatch):
    """One that hashes runs without Python's lock, as Jittor's threads do."""
    monkeypatch.setattr(errors, "_SETTLING_S", 60.0)
    ended = []

    def work():
        hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000)  # a tenth of a second at least
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    started = time.monotonic()
    thread.start()
    while thread.is_alive() and not errors._others_run():
        time.sleep(0.001)
    let_threads_settle()
    settled = time.monotonic()
    thread.join()
    assert settled > ended[0] - 0.5 * (ended[0] - started)
    let_threads_settle()  # nothing runs any more
    assert time.monotonic() - settled < 30


def test_the_end_waits_a_second_at_most(monkeypatch):
    monkeypatch.setattr(errors, "_others_run", lambda: True)
    started = time.monotonic()
    let_threads_settle()
    assert time.monotonic() - started > 0.9
