"""Makes Jittor importable and fast on this machine, before anything imports it.

`prepare()` is called at the top of every script, by tests and by benchmarks:

    from models import runtime

    runtime.prepare()
    import jittor as jt

It only looks at the machine, sets environment variables that Jittor reads while it is
imported, and links the oneDNN that pip installed to the place where Jittor expects its own
download. A variable that the user has set is never overridden.
"""

import ctypes
import glob
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys

from models.errors import UserError

COMPILE_MINUTES = "3 to 6 minutes"
ONEDNN_PACKAGE = "onednn-devel-cpu-gomp"
# The folder Jittor 1.3.11 looks for below <home>/.cache/jittor/mkl before it downloads one.
ONEDNN_FOLDER = "dnnl_lnx_2.2.0_cpu_gomp"
JITTOR_DOWNLOADS = "cg.cs.tsinghua.edu.cn"
# Libraries that Jittor needs beside libcudart; without one of them its import ends.
CUDA_LIBRARIES = ("cublas", "cudnn", "curand", "cufft", "cusparse")


def prepare():
    """Make `import jittor` work here, on the fastest path that the machine has.

    Switches CUDA off where it cannot work, gives Jittor the oneDNN of `requirements.txt`,
    and says in one line on stderr when the import is about to compile Jittor's core.
    Does nothing if Jittor is already imported.

    Raises:
        UserError: no C++ compiler, no Python headers, no Jittor, or a home folder
            that cannot be written.
    """
    if "jittor" in sys.modules:
        return
    os.environ.setdefault("log_silent", "1")
    # Otherwise Jittor names its cache after the git branch that surrounds site-packages, and
    # a virtual environment inside the checkout recompiles after every `git checkout`.
    os.environ.setdefault("cache_name", "default")
    _require_compiler()
    utils = _import_jittor_utils()
    _choose_cuda(utils.home())
    if os.environ.setdefault("use_mkl", _link_onednn(utils.home())) == "0":
        print("models.runtime: oneDNN is not installed; matrix products will be slow "
              f"(pip install {ONEDNN_PACKAGE}==2021.4.0)", file=sys.stderr)
    if not glob.glob(os.path.join(glob.escape(utils.cache_path), "**", "jittor_core*.so"),
                     recursive=True):
        print("models.runtime: compiling Jittor's core, once on this machine "
              f"({COMPILE_MINUTES}) …", file=sys.stderr, flush=True)


def use_accelerator():
    """Have Jittor compute on the GPU where `prepare` left CUDA on; after the first import."""
    import jittor as jt
    if jt.has_cuda:
        jt.flags.use_cuda = 1


def _require_compiler():
    compiler = os.environ.get("cc_path") or "g++"
    if shutil.which(compiler) is None:
        raise UserError(
            f"Jittor compiles its kernels and found no C++ compiler ({compiler}); install one: "
            "apt-get install g++  (Fedora, RHEL: dnf install gcc-c++)")


def _import_jittor_utils():
    """`jittor_utils` knows Jittor's folders; unlike `jittor` itself, it compiles nothing."""
    try:
        import jittor_utils
    except ImportError as error:
        raise UserError(
            f"{error}; install the requirements: pip install -r requirements.txt") from error
    except OSError as error:
        raise UserError(
            f"Jittor cannot write its cache: {error}; make the folder writable, or set "
            "JITTOR_HOME to one that is") from error
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    # Jittor looks beside the interpreter, which in a virtual environment is not the real one.
    beside_real_python = os.path.join(sys.base_prefix, "bin", f"python{version}-config")
    try:
        jittor_utils.get_py3_include_path()
    except Exception as error:
        if not os.path.isfile(beside_real_python):
            raise UserError(
                f"Jittor needs the headers of Python {version}; install them: "
                f"apt-get install python{version}-dev") from error
        os.environ["python_config_path"] = beside_real_python
    return jittor_utils


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
