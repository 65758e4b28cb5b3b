"""Has Jittor compile its core in a process of its own, and tells in one line what failed there."""

import contextlib
import ctypes
import fcntl
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from system import parallel
from system.errors import UserError, log

COMPILE_MINUTES = "3 to 6 minutes"
COMPILE_MINUTES_CUDA = "1 to 6 minutes; the kernels of a first training and test take as long again"
# The core takes 28 MB, the kernels of a training run and a test run 320 MB, their precompiled
# header 85 MB, g++'s temporary files less than 20 MB.
FIRST_RUN_MB = 500
LATER_RUN_MB = 50  # a kernel is compiled when it is first met
TEMPORARY_MB = 50
# How an import ends that finds a file cut off, as after a crash of the whole machine.
DAMAGE = re.compile("SIGBUS|SIGSEGV|Caught segfault|file not recognized|file too short|"
                    "file truncated|invalid ELF")


def compiler():
    """The C++ compiler that Jittor will call: a name or a path."""
    return os.environ.get("cc_path") or "g++"


def broken_compiler(what_it_said):
    """The error of a compiler that is there and fails."""
    return UserError(f"the C++ compiler {compiler()} does not work: {what_it_said}; install it "
                     "again: apt-get install --reinstall g++")


def core_is_compiled(cache_path):
    """Jittor writes a library's `.key` once the compiler has written the whole library."""
    return bool(glob.glob(os.path.join(glob.escape(cache_path), "**", "jittor_core*.so.key"),
                          recursive=True))


def require_free_space(folder, needed, content="Jittor's cache", variable="JITTOR_HOME"):
    """Refuse a folder on whose disk fewer than `needed` MB are free."""
    free = shutil.disk_usage(folder).free // 2**20
    if free < needed:
        raise UserError(f"{free} MB are free for {content}, {folder}, and {needed} MB are needed; "
                        f"make room, or set {variable} to a folder on another disk")


def compile_core(cache_path, lock_path):
    """Import Jittor in a process of its own, which compiles its core.

    There its traceback, a Ctrl-C and an import that ends half-way can be told in one line. What
    an interrupted compilation left is gone on from, or removed where it is damaged.

    Raises:
        UserError: no space, a compiler that does not work, or a compilation that failed.
        KeyboardInterrupt: Ctrl-C, with what to do next.
    """
    require_free_space(cache_path, FIRST_RUN_MB)
    require_free_space(tempfile.gettempdir(), TEMPORARY_MB, "temporary files", "TMPDIR")
    _require_working_compiler(cache_path)
    log_path = os.path.join(cache_path, "first_import.log")
    try:
        with _locked(lock_path):
            _remove_half_written(cache_path)
        if core_is_compiled(cache_path):  # by the process that held the lock
            return
        cuda = bool(os.environ.get("nvcc_path"))
        say(f"compiling Jittor's core{' with CUDA' * cuda}, once on this machine "
            f"({COMPILE_MINUTES_CUDA if cuda else COMPILE_MINUTES}) …")
        resumed = os.path.isdir(os.path.join(cache_path, "obj_files"))
        failure, output = _import_jittor(cache_path, log_path)
        if failure and resumed and DAMAGE.search(failure + output):
            say("what an interrupted compilation left is damaged; compiling from the start …")
            with _locked(lock_path):
                shutil.rmtree(cache_path)
                os.mkdir(cache_path)
            failure, output = _import_jittor(cache_path, log_path)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped while compiling Jittor's core; run the same command "
                                "again, it goes on from here") from None
    if failure:
        otherwise = ", or with nvcc_path= before it, which leaves the GPU aside" * cuda
        raise UserError(f"Jittor's core could not be compiled: {failure}; mend that and run the "
                        f"same command again{otherwise} (all of the output: {log_path})")


def say(line):
    """A line on the machine's part in a run."""
    log(f"system.runtime: {line}")


def _require_working_compiler(cache_path):
    """Build and load a library as Jittor will: headers, OpenMP, linker; half a second."""
    with tempfile.TemporaryDirectory(dir=cache_path) as folder:
        library = os.path.join(folder, "probe.so")
        done = subprocess.run(
            [compiler(), "-std=c++14", "-fPIC", "-fopenmp", "-shared", "-x", "c++", "-",
             "-o", library],
            input="#include <vector>\n#include <omp.h>\nint n() { return omp_get_max_threads(); }",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise broken_compiler(_telling_line(done.stdout) or f"exit code {done.returncode}")
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise UserError(
                f"no library can be loaded from Jittor's cache ({error}), as on a disk that is "
                "mounted noexec; set JITTOR_HOME to a folder on another disk") from error


@contextlib.contextmanager
def _locked(lock_path):
    """Jittor's own lock, which every import of Jittor holds."""
    with open(lock_path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is compiling Jittor's core; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_half_written(cache_path):
    """Remove the library on which, half-written, the next import of Jittor would end."""
    for library in glob.glob(os.path.join(glob.escape(cache_path), "jit_utils_core*.so")):
        if not os.path.exists(f"{library}.key"):
            os.remove(library)


def _import_jittor(cache_path, log_path):
    """(what failed or '', all of the output)."""
    # After an interruption Jittor may mend one file, exit with 0 and ask for a second run.
    for _ in range(2):
        with open(log_path, "wb") as log:
            status = _import_in_a_process(log)
        if status != 0 or core_is_compiled(cache_path):
            break
    if status == 0:
        return "", ""
    with open(log_path, encoding="utf-8", errors="replace") as log:
        output = log.read()
    ended_with = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    return _telling_line(output) or f"it ended with {ended_with}", output


def _import_in_a_process(log):
    """The exit status. In a session of its own, all its compilers can be ended at once."""
    process = subprocess.Popen([sys.executable, "-c", "import jittor"], stdout=log, stderr=log,
                               env=parallel.environment_alone(), start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _telling_line(output):
    """The first line of a compiler's output that tells an error, or the last line at all."""
    lines = [re.sub(r"\x1b\[[0-9;]*[mK]", "", line).strip() for line in output.splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if "ld returned" not in line and re.search(
        "error:|No space left|cannot find|file not recognized|Killed", line)]
    return (errors or lines[-1:] or [""])[0][:300]
