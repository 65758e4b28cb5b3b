"""Makes Jittor importable and fast on this machine, before anything imports it.

`prepare()` is called at the top of every script, by tests and by benchmarks:

    from models import runtime

    runtime.prepare()
    import jittor as jt

It looks at the machine, sets environment variables that Jittor reads while it is imported,
and links the oneDNN that pip installed to the place where Jittor expects its own download.
On a new machine it has Jittor compile its core. A variable that the user has set is never
overridden.
"""

import contextlib
import ctypes
import glob
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from models import parallel
from models.errors import UserError
from models.first_import import (
    LATER_RUN_MB,
    broken_compiler,
    compile_core,
    compiler,
    core_is_compiled,
    require_free_space,
)

PYTHONS = ((3, 8), (3, 12))  # the oldest and the newest that requirements.txt has wheels for
ONEDNN_PACKAGE = "onednn-devel-cpu-gomp"
# The folder Jittor 1.3.11 looks for below <home>/.cache/jittor/mkl before it downloads one.
ONEDNN_FOLDER = "dnnl_lnx_2.2.0_cpu_gomp"
JITTOR_KNOWS = ("g++", "clang", "icc", "icpc")  # in a compiler's file name
JITTOR_DOWNLOADS = "cg.cs.tsinghua.edu.cn"
_BFLOAT16 = 2  # of Jittor's use_tensorcore: CUBLAS_COMPUTE_32F_FAST_16BF
# Libraries that Jittor needs beside libcudart; without one of them its import ends.
CUDA_LIBRARIES = ("cublas", "cudnn", "curand", "cufft", "cusparse")


def prepare():
    """Make `import jittor` work here, on the fastest path that the machine has.

    Switches CUDA off where it cannot work, gives Jittor the oneDNN of `requirements.txt`,
    and where Jittor's core is not compiled yet, compiles it and says so in one line on stderr.
    Does nothing if Jittor is already imported.

    Raises:
        UserError: a Python that is too old or too new, no C++ compiler or a broken one, no
            Python headers, no Jittor, mpirun without MPI's compiler, a home folder that cannot
            be written or has no space left, or a compilation that failed.
        KeyboardInterrupt: Ctrl-C while the core is compiled, with what to do next.
    """
    if "jittor" in sys.modules:
        return
    _require_python()
    os.environ.setdefault("log_silent", "1")
    # Otherwise Jittor names its cache after the git branch that surrounds site-packages, and
    # a virtual environment inside the checkout recompiles after every `git checkout`.
    os.environ.setdefault("cache_name", "default")
    _require_compiler()
    _choose_mpi()
    try:
        utils = _import_jittor_utils()
        _require_headers(utils)
        _choose_cuda(utils.home())
        use_mkl = os.environ.setdefault("use_mkl", _link_onednn(utils.home()))
        if core_is_compiled(utils.cache_path):
            require_free_space(utils.cache_path, LATER_RUN_MB)
        else:
            compile_core(utils.cache_path, utils.lock.lock_path)
    except OSError as error:
        raise UserError(
            f"Jittor cannot write its cache: {error}; mend that, or set JITTOR_HOME to a folder "
            "that can be written and has space") from error
    if use_mkl == "0":
        print("models.runtime: oneDNN is not installed; matrix products will be slow "
              f"(pip install {ONEDNN_PACKAGE}==2021.4.0)", file=sys.stderr)


def use_accelerator():
    """Have Jittor compute on the GPU where `prepare` left CUDA on; after the first import."""
    import jittor as jt
    if jt.has_cuda:
        jt.flags.use_cuda = 1


def gpu_is_used():
    """Whether Jittor computes on a GPU."""
    jt = sys.modules.get("jittor")
    return jt is not None and bool(jt.flags.use_cuda)


def mixed_precision(wanted):
    """A context in which a GPU computes matrix products from factors rounded to bfloat16.

    cuBLAS rounds them and sums in float32; all else, the weights too, stays float32. As bfloat16
    has float32's range, the loss needs no scaling. Without a GPU nothing changes, which a line
    tells.

    Args:
        wanted: whether to do so.
    """
    import jittor as jt
    if wanted and gpu_is_used():
        return jt.flag_scope(use_tensorcore=_BFLOAT16)
    if wanted:
        print("train.amp: no GPU is in use; products stay in float32", file=sys.stderr)
    return contextlib.nullcontext()


def _require_python():
    python = tuple(sys.version_info[:2])
    if not PYTHONS[0] <= python <= PYTHONS[1]:
        here, oldest, newest = ("{}.{}".format(*version) for version in (python, *PYTHONS))
        raise UserError(
            f"Python {here} does not serve: this project needs {oldest} to {newest}; make an "
            f"environment with one: python{newest} -m venv .venv && . .venv/bin/activate")


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
        print(f"models.runtime: mpirun has bound each process to {bound} of its {fair} cores; "
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
            failure = UserError(f"{error}; install the requirements: "
                                "pip install -r requirements.txt")
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


def _require_headers(utils):
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # Jittor looks beside the interpreter, which in a virtual environment is not the real one.
    beside_real_python = os.path.join(sys.base_prefix, "bin", f"python{version}-config")
    try:
        utils.get_py3_include_path()
    except Exception as error:
        if not os.path.isfile(beside_real_python):
            raise UserError(
                f"Jittor needs the headers of Python {version}; install them: "
                f"apt-get install python{version}-dev") from error
        os.environ["python_config_path"] = beside_real_python


def _choose_cuda(home):
    """Leave CUDA on where its compiler, libraries, driver and device are all there."""
    # Optional speed-ups that Jittor would download; this project does not use them.
    for optional in ("use_cutt", "use_cutlass", "use_nccl"):
        os.environ.setdefault(optional, "0")
    if "nvcc_path" in os.environ:
        return
    if glob.glob(os.path.join(home, ".cache", "jittor", "jtcuda", "*", "bin", "nvcc")):
        usable = _device_count("libcuda.so.1") > 0
    else:
        nvcc = next(filter(None, map(shutil.which, (
            "nvcc", "/usr/local/cuda/bin/nvcc", "/usr/bin/nvcc", "/opt/cuda/bin/nvcc"))), None)
        if nvcc:
            usable = _toolkit_complete(nvcc) and _device_count("libcuda.so.1") > 0
        else:  # Jittor fetches a toolkit of its own where there is a driver
            usable = _device_count("libcuda.so.1") > 0 and _reachable(JITTOR_DOWNLOADS)
    if not usable:
        os.environ["nvcc_path"] = ""


def _toolkit_complete(nvcc):
    root = os.path.dirname(os.path.dirname(os.path.realpath(_unwrap(nvcc))))
    folders = [os.path.join(root, "lib64"), os.path.join(root, "lib"),
               *glob.glob(os.path.join(root, "targets", "*", "lib")),
               *glob.glob("/usr/lib/*-linux-gnu"), "/usr/lib"]

    def has(name):
        return any(os.path.exists(os.path.join(folder, f"lib{name}.so")) for folder in folders)

    return has("cudart") and all(map(has, CUDA_LIBRARIES))


def _unwrap(nvcc):
    """The nvcc that a wrapper script starts, as nvcc itself reports it (`TOP=` of --dryrun)."""
    try:
        report = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull],
                                capture_output=True, text=True, timeout=20).stderr
    except (OSError, subprocess.TimeoutExpired):
        return nvcc
    for line in report.splitlines():
        if line.startswith("#$ _HERE_="):
            return os.path.join(line.split("=", 1)[1].strip(), "nvcc")
    return nvcc


def _device_count(driver):
    """How many CUDA devices the driver library reports; 0 without a driver."""
    count = ctypes.c_int(0)
    try:
        library = ctypes.CDLL(driver)
        if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def _reachable(host):
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


def _link_onednn(home):
    """Put pip's oneDNN where Jittor looks for its own; '1' if Jittor will find one, else '0'."""
    target = os.path.join(home, ".cache", "jittor", "mkl", ONEDNN_FOLDER)
    library = os.path.join(target, "lib", "libmkldnn.so")
    header = os.path.join(target, "include", "mkldnn.hpp")
    source = _onednn_folders()
    if source is None:
        # One that Jittor downloaded serves as well; and it may download it now, if it can.
        found = os.path.exists(library) and os.path.exists(header)
        return "1" if found or _reachable(JITTOR_DOWNLOADS) else "0"
    for name, folder in source.items():
        link = os.path.join(target, name)
        if os.path.isdir(link) and not os.path.islink(link):
            continue  # a real download
        if os.path.realpath(link) == os.path.realpath(folder):
            continue
        os.makedirs(target, exist_ok=True)
        temporary = f"{link}.{os.getpid()}"
        os.symlink(folder, temporary)
        os.replace(temporary, link)  # another process may do the same at the same time
    return "1"


def _onednn_folders():
    """{'include': …, 'lib': …} of the installed oneDNN package, or None."""
    import importlib.metadata  # here, as a Python without it must reach _require_python
    try:
        files = importlib.metadata.files(ONEDNN_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    header = next((f for f in files if f.name == "mkldnn.hpp"), None)
    if header is None:
        return None
    include = os.path.dirname(os.path.normpath(str(header.locate())))
    lib = os.path.join(os.path.dirname(include), "lib")
    if not os.path.exists(os.path.join(lib, "libmkldnn.so")):
        return None
    return {"include": include, "lib": lib}
