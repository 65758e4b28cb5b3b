"""What a user can mend: one exception, and the way scripts end on it."""

import atexit
import errno
import multiprocessing
import os
import signal
import sys
import traceback
import warnings

from system import parallel

_UNWRITABLE = ("make it writable, or name another place (output.cache_dir, output.checkpoint_dir, "
               "--output)")
_CURES = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EACCES: _UNWRITABLE,
          errno.EPERM: _UNWRITABLE, errno.EROFS: _UNWRITABLE, errno.ENOENT: "put it back"}
# What the loader says of a compiled kernel that is not whole; Jittor compiles it again.
_HALF_WRITTEN = ("invalid ELF header", "file too short")


class UserError(Exception):
    """A mistake of the user's: the message is one line that names the thing and the cure."""

    def __init__(self, message):
        super().__init__(" ".join(part.strip() for part in str(message).splitlines()))


class DamagedFile(UserError):
    """A file that is not whole, so that it cannot be read."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM.

    Args:
        number: the signal's.
    """

    def __init__(self, number):
        super().__init__()
        self.number = number


def run_script(main, go_on=""):
    """Run a script's `main()`; what a user can mend ends it in one line on stderr and exit code 2.

    That is a `UserError`, a full disk or any other failure of a file. Ctrl-C and SIGTERM end it
    in one line too, the interrupt's own where it has one, and exit code 130 or 143. One of several
    processes that fails ends them all. Warnings are one line each.

    Args:
        main: function without arguments.
        go_on: what an interrupted user is told to do.
    """
    parallel.let_first_speak()
    _show_warnings_in_one_line()
    stopped, interrupted = [], f"interrupted{go_on and '; ' + go_on}"

    def stop(number, frame):
        stopped.append(number)
        raise Stopped(number)

    # Jittor, once imported, has handlers of its own, which end the process at once: on a Ctrl-C,
    # and when a child of it is killed.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def in_child():
        if stopped:  # a pool put this child in the place of one that `_end_at_once` has ended
            os._exit(1)
        _end_when_told()

    # A child that waits for work, such as Jittor's compilers, is to end at once.
    os.register_at_fork(after_in_child=in_child)
    try:
        main()
    except UserError as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as interrupt:
        _end_at_once(str(interrupt) or interrupted,
                     128 + getattr(interrupt, "number", signal.SIGINT))
    except Exception as error:
        if stopped:  # it has ended a compiler too, of which Jittor complains
            _end_at_once(interrupted, 128 + stopped[0])
        if isinstance(error, OSError) and error.errno is not None:
            cure = _CURES.get(error.errno, "mend that")
            _end(f"error: {error}; {cure} and run the same command again", 2)
        if any(sign in str(error) for sign in _HALF_WRITTEN):
            _end("error: a kernel in Jittor's cache is half written, as another run was stopped "
                 "while compiling it; run the same command again", 2)
        if "Unable to alloc cuda device memory" in str(error):
            _end("error: the GPU's memory is full; end what else runs on it (nvidia-smi tells), "
                 "or lower train.batch_size or test.batch_size", 2)
        if parallel.size() > 1:
            parallel.end(traceback.format_exc(), 1)
        raise


def run_to_the_end(main, go_on=""):
    """`run_script`, and then end the process without Jittor's own ending.

    There Jittor 1.3.11 waits for its compiling threads, for ever if one has only just been made and
    misses the word to end; and it frees what it holds in an order that has ended a process with
    SIGABRT, after its work was done. Whatever else is to be done at exit is done. Several processes
    end as usual, as MPI wants to be told.
    """
    code = 0
    try:
        run_script(main, go_on)
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        traceback.print_exc()
        code = 1
    if parallel.size() > 1:
        sys.exit(code)
    atexit.unregister(sys.modules["jittor"].jittor_exit)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"error: what was printed is not whole: {error}", file=sys.stderr)
        code = code or 2
    sys.stderr.flush()
    os._exit(code)


def _end_when_told():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _end(line, code):
    if parallel.size() > 1:
        parallel.end(line, code)
    print(line, file=sys.stderr)
    sys.exit(code)


def _end_at_once(line, code):
    """End without Python's own ending: the signal may have ended a child of Jittor's pool of
    compilers that held the pool's lock, for which the ending would wait for ever."""
    print(line, file=sys.stderr)
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def log(text):
    """A line of a script's progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_beside_bars(text, file):
    """Print lines on a terminal where `tqdm`'s bars may stand, never on the same line as one."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:  # so that there are no bars
        print(text, file=file, flush=True)
    else:
        tqdm.tqdm.write(text, file=file)
        file.flush()


def _show_warnings_in_one_line():
    """Have warnings printed as 'warning: …' without the place in the source.

    Pillow's own are left out, as they do not name the file: `data.views.decode` warns of what
    matters.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # Jittor's source, Python 3.12
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    warnings.showwarning = lambda message, *_, **__: print_beside_bars(
        f"warning: {message}", sys.stderr)
