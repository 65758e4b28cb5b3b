"""Makes Jittor importable and fast on this machine, before anything imports it.

`prepare()` is called at the top of every script, by tests and by benchmarks:

    from system import runtime

    runtime.prepare()
    import jittor as jt

It looks at the machine, sets environment variables that Jittor reads while it is imported,
and links the oneDNN that pip installed to the place where Jittor expects its own download.
On a new machine it has Jittor compile its core. A variable that the user has set is never
overridden.
"""

import contextlib
import glob
import io
import json
import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path

from system import cuda_toolkit, onednn, parallel
from system.errors import UserError
from system.first_import import (
    LATER_RUN_MB,
    broken_compiler,
    compile_core,
    compiler,
    core_is_compiled,
    require_free_space,
    say,
)

PYTHONS = ((3, 8), (3, 14))  # the oldest and the newest that requirements.txt has wheels for
JITTOR = "1.3.11.0+mended.1"  # that of third_party/jittor
PILLOW = (12, 1)  # the newest that resizes as all before it, and as data/resampling.py
JITTOR_KNOWS = ("g++", "clang", "icc", "icpc")  # in a compiler's file name
JITTOR_DOWNLOADS = "cg.cs.tsinghua.edu.cn"
_BFLOAT16 = 2  # of Jittor's use_tensorcore: CUBLAS_COMPUTE_32F_FAST_16BF
_INSTALL = "install the requirements: pip install -r requirements.txt"
_NO_CUDA = None  # why a GPU that is there is not used
_PRECISION = "float32"  # of the encoders' products, as `use_accelerator` found


def prepare():
    """Make `import jittor` work here, on the fastest path that the machine has.

    Gives Jittor the CUDA that this machine has, or none, and the oneDNN of `requirements.txt`;
    where Jittor's core is not compiled yet, compiles it and says so in one line on stderr.
    Does nothing if Jittor is already imported.

    Raises:
        UserError: a Python or a Pillow that is too old or too new, no C++ compiler or a broken
            one, no Python headers, no Jittor or one without our mends, mpirun without MPI's
            compiler, a home folder that cannot be written or has no space left, or a compilation
            that failed.
        KeyboardInterrupt: Ctrl-C while the core is compiled, with what to do next.
    """
    if "jittor" in sys.modules:
        return
    _require_python()
    _require_pillow()
    os.environ.setdefault("log_silent", "1")
    _require_compiler()
    _choose_mpi()
    gpu, toolkit = _find_cuda()
    # Otherwise Jittor names its cache after the git branch that surrounds site-packages, and
    # a virtual environment inside the checkout recompiles after every `git checkout`. With CUDA
    # its flags are others, and one cache would be made anew at each change.
    name = cuda_toolkit.cache_name(toolkit, gpu) if toolkit else "cuda" if gpu else "default"
    os.environ.setdefault("cache_name", name)
    try:
        utils = _import_jittor_utils()
        _require_mends(utils.get_jittor_version())
        _require_headers()
        if toolkit:
            cuda_toolkit.lay_out(toolkit, gpu, os.path.join(
                utils.home(), ".cache", "jittor", f"toolkit-{name}"))
        use_mkl = os.environ.setdefault("use_mkl", "1" if onednn.link_installed(
            utils.home()) or _reachable(JITTOR_DOWNLOADS) else "0")
        if core_is_compiled(utils.cache_path):
            require_free_space(utils.cache_path, LATER_RUN_MB)
        else:
            compile_core(utils.cache_path, utils.lock.lock_path)
    except OSError as error:
        raise UserError(
            f"Jittor cannot write its cache: {error}; mend that, or set JITTOR_HOME to a folder "
            "that can be written and has space") from error
    if use_mkl == "0" and not gpu:
        say("oneDNN is not installed; matrix products will be slow "
            f"(pip install {onednn.PACKAGE}==2022.2.1)")


def use_accelerator(device="auto", precision="float32"):
    """Have Jittor compute where and how it is to, which a line tells; after the first import.

    Args:
        device: 'cpu', 'cuda', or 'auto': the GPU where `prepare` could set it up.
        precision: 'float32'; 'bfloat16', to which the encoders' products then round their factors,
            while sums, weights and all else stay float32; or 'auto': bfloat16 on a CPU that has
            instructions for it, which oneDNN tells.

    Raises:
        UserError: 'cuda' where no GPU can be used, or another word.
    """
    global _PRECISION
    import jittor as jt
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {device!r}; it must be auto, cpu or cuda")
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"precision is {precision!r}; it must be auto, float32 or bfloat16")
    if device == "cuda" and not jt.has_cuda:
        raise UserError(f"device=cuda, but {_NO_CUDA or 'no GPU or driver is found'} (nvcc_path="
                        f"{os.environ.get('nvcc_path')!r})")
    # Otherwise each array given to Jittor waits for all that the GPU was asked before, and all of
    # the CPU's memory is pinned.
    jt.flags.use_cuda_host_allocator = 0
    jt.flags.use_cuda = int(device != "cpu" and jt.has_cuda)
    if jt.flags.use_cuda:
        say(f"computing on the GPU, {cuda_toolkit.first_gpu().name}")
    elif device == "auto" and _NO_CUDA:
        say(f"computing on the CPU; {_NO_CUDA}")
    _PRECISION = "float32"
    if precision == "bfloat16" and not jt.flags.use_cuda and not onednn.has_bfloat16():
        say("precision=bfloat16: this processor, or its oneDNN, gains nothing by it; products are "
            "in float32")
    elif precision == "bfloat16" or (
            precision == "auto" and not jt.flags.use_cuda and onednn.has_bfloat16()):
        _PRECISION = "bfloat16"
        say("the encoders' products are in bfloat16 (precision=float32: all in float32)")


def precision():
    """In what the encoders' products are computed: 'float32' or 'bfloat16'."""
    return _PRECISION


def gpu_is_used():
    """Whether Jittor computes on a GPU."""
    jt = sys.modules.get("jittor")
    return jt is not None and bool(jt.flags.use_cuda)


@contextlib.contextmanager
def mixed_precision():
    """A context in which a GPU computes all matrix products in `precision()`, for the encoders'.

    cuBLAS rounds the factors and sums in float32; all else, the weights too, stays float32. As
    bfloat16 has float32's range, a loss needs no scaling. On the CPU models/kernels/linear.py
    does so by itself.
    """
    if not gpu_is_used() or _PRECISION == "float32":
        yield
        return
    import jittor as jt
    jt.sync_all()  # what was asked for before is not meant, and what is asked here is
    with jt.flag_scope(use_tensorcore=_BFLOAT16):
        yield
        jt.sync_all()


def _require_python():
    python = tuple(sys.version_info[:2])
    if not PYTHONS[0] <= python <= PYTHONS[1]:
        here, oldest, newest = ("{}.{}".format(*version) for version in (python, *PYTHONS))
        raise UserError(
            f"Python {here} does not serve: this project needs {oldest} to {newest}; make an "
            f"environment with one: python{newest} -m venv .venv && . .venv/bin/activate")


def _require_pillow():
    try:
        import PIL
    except ImportError as error:
        raise UserError(f"{error}; {_INSTALL}") from error
    if tuple(int(number) for number in PIL.__version__.split(".")[:2]) > PILLOW:
        raise UserError(f"Pillow {PIL.__version__} resizes images otherwise than those before it, "
                        f"and labels would change; {_INSTALL}")


def _require_compiler():
    if not os.environ.get("cc_path", "g++"):
        del os.environ["cc_path"]  # Jittor would call the empty name
    if shutil.which(compiler()) is None:
        raise UserError(
            f"Jittor compiles its kernels and found no C++ compiler ({compiler()}); install one: "
            "apt-get install g++  (Fedora, RHEL: dnf install gcc-c++)")
    if not any(kind in os.path.basename(compiler()) for kind in JITTOR_KNOWS):
        raise UserError(f"Jittor does not know the compiler cc_path={compiler()}; set cc_path to a "
                        "g++ or clang++, or unset it")


def _choose_mpi():
    """Join the processes that mpirun started; one that is alone does without MPI."""
    if parallel.size() == 1:
        os.environ.pop("OMPI_COMM_WORLD_SIZE", None)  # mpirun -np 1, by which Jittor would know
        os.environ.setdefault("use_mpi", "0")
        return
    compiler = os.environ.get("mpicc_path") or "mpicc"
    if os.environ.get("use_mpi", "1") != "1" or shutil.which(compiler) is None:
        raise UserError(f"mpirun has started {parallel.size()} processes, and to join them Jittor "
                        f"needs OpenMPI's compiler ({compiler}) and use_mpi unset; install it: "
                        "apt-get install libopenmpi-dev")
    # mpirun itself is not bound to the cores that it may bind its processes to.
    fair = max(1, len(os.sched_getaffinity(os.getppid())) // parallel.local_size())
    bound = len(os.sched_getaffinity(0))
    if bound < fair:
        print(f"system.runtime: mpirun has bound each process to {bound} of its {fair} cores; "
              "mpirun --bind-to none leaves it all", file=sys.stderr)
    os.environ.setdefault("OMP_NUM_THREADS", str(min(bound, fair)))


def _import_jittor_utils():
    """`jittor_utils` knows Jittor's folders; unlike `jittor` itself, it compiles nothing."""
    failure = None
    # Held back: what the compiler says where it cannot tell its version, and the second error
    # that Jittor's lock raises, as it is deleted, where its file cannot be opened.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            import jittor_utils
        except ImportError as error:
            failure = UserError(f"{error}; {_INSTALL}")
        except OSError as error:
            failure = OSError(str(error))
        except json.JSONDecodeError:
            failure = UserError(f"{Path.home()}/.cache/jittor/config.json, which Jittor wrote, is "
                                "damaged; delete it")
        except RuntimeError as error:  # pathlib's, where the user has no home folder at all
            failure = UserError(f"{error} Set HOME to a folder that can be written.")
        except Exception as error:
            failure = broken_compiler(error)
    if failure:
        raise failure
    if not os.access(jittor_utils.cache_path, os.W_OK | os.X_OK):  # it may be another user's
        raise PermissionError(f"no permission to write {jittor_utils.cache_path}")
    return jittor_utils


def _require_mends(version):
    if version != JITTOR:
        raise UserError(
            f"Jittor {version} is installed, and this project needs {JITTOR}, the same with mends "
            "(third_party/jittor/README.md); in the repository: pip install ./third_party/jittor")


def _require_headers():
    if not os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise UserError(f"Jittor needs the headers of Python {version}; install them: "
                        f"apt-get install python{version}-dev")


def _find_cuda():
    """The GPU and the toolkit that Jittor is to be given; (GPU, None) where it has its own.

    (None, None) without a GPU, or with one that cannot be used, which `use_accelerator` tells.
    """
    global _NO_CUDA
    # Optional speed-ups that Jittor would download; this project does not use them.
    for optional in ("use_cutt", "use_cutlass", "use_nccl"):
        os.environ.setdefault(optional, "0")
    os.environ.setdefault("FIX_TORCH_ERROR", "0")  # or Jittor imports PyTorch where there is one
    gpu = None if os.environ.get("nvcc_path") == "" else cuda_toolkit.first_gpu()
    if gpu is None:
        os.environ.setdefault("nvcc_path", "")
        return None, None
    if "nvcc_path" in os.environ or _jittor_has_its_own():
        return gpu, None
    try:
        return gpu, cuda_toolkit.find_toolkit(gpu)
    except cuda_toolkit.NoCuda as reason:
        if isinstance(reason, cuda_toolkit.NoNvcc) and _reachable(JITTOR_DOWNLOADS):
            return gpu, None  # Jittor fetches a toolkit of its own
        _NO_CUDA = f"{gpu.name}: {reason}"
        os.environ["nvcc_path"] = ""
        return None, None


def _jittor_has_its_own():
    home = os.environ.get("JITTOR_HOME") or Path.home()
    return bool(glob.glob(os.path.join(home, ".cache", "jittor", "jtcuda", "*", "bin", "nvcc")))


def _reachable(host):
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True
