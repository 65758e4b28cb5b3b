"""Finds CUDA on this machine and lays it out as Jittor 1.3.11 looks for it, off-line.

Jittor opens `bin/nvcc`, `include/*.h` and `lib64/lib*.so` of one folder, under the names that a
full installation of CUDA 11 or 12 has. What people have is an nvcc behind a wrapper, conda's
folders, a distribution's packages, or PyTorch's (site-packages/nvidia/*: libraries without nvcc and
without those names), and CUDA 13 and cuDNN 9, which Jittor is older than. So one folder of links is
made in Jittor's home, and system/cuda_compat/ has what the newer headers lack.
"""

import ctypes
import glob
import os
import platform
import re
import shutil
import site
import subprocess
import sys
import tempfile
import zlib
from typing import Dict, NamedTuple, Tuple

from system.errors import UserError

_COMPAT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda_compat")
_NEEDED = ("cudart", "cublas", "cublasLt", "curand")  # libraries; …
_NEEDED_HEADERS = ("cuda_runtime.h", "cublas_v2.h", "curand.h")
_NEWEST = (9, 0)  # the newest capability that Jittor compiles for
_FOR_CONVOLUTIONS = ("cudnn", "cufft", "cusparse")  # … of which Jittor takes all or none
_LIBRARY = re.compile(
    r"lib(cudart|cublas\w*|curand|cufft|cusparse|cudnn\w*|nvJitLink)\.so(\.\d+)*$"
    r"|libcudadevrt\.a$")  # which nvcc links into every kernel; its package's own has it elsewhere
# What Jittor asks cuDNN for by name, and where cuDNN 9 has it.
_CUDNN_9 = {f"libcudnn_{part}_{use}.so": f"libcudnn_{part}.so.9"
            for part in ("ops", "cnn") for use in ("infer", "train")}
_HOW = ("install CUDA's toolkit (https://developer.nvidia.com/cuda-downloads, or conda install -c "
        "nvidia cuda-toolkit)")


class NoCuda(Exception):
    """Why a GPU that is there cannot be used, and what helps."""


class NoNvcc(NoCuda):
    """There is no toolkit at all."""


class GPU(NamedTuple):
    """A device as its driver tells it.

    Attributes:
        name: as 'NVIDIA H100 80GB HBM3'.
        capability: (major, minor), (9, 0) of an H100.
        driver: the newest CUDA that the driver runs, (major, minor).
    """

    name: str
    capability: Tuple[int, int]
    driver: Tuple[int, int]


class Toolkit(NamedTuple):
    """Where the parts of one CUDA are.

    Attributes:
        version: of nvcc, (major, minor).
        root: nvcc's own folder, with `bin`.
        libraries, headers: {name, as Jittor looks for it: path}.
    """

    version: Tuple[int, int]
    root: str
    libraries: Dict[str, str]
    headers: Dict[str, str]


def first_gpu():
    """The first `GPU` that CUDA_VISIBLE_DEVICES leaves, or None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count, version = ctypes.c_int(), ctypes.c_int()
        if (driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value
                or driver.cuDriverGetVersion(ctypes.byref(version))):
            return None
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), 0)
        driver.cuDeviceGetName(name, len(name), device)
        capability = [ctypes.c_int(), ctypes.c_int()]
        for attribute, value in zip((75, 76), capability):  # CU_DEVICE_ATTRIBUTE_COMPUTE_…
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    except (OSError, AttributeError):
        return None
    return GPU(name.value.decode(), tuple(value.value for value in capability),
               (version.value // 1000, version.value % 1000 // 10))


def find_toolkit(gpu):
    """The first `Toolkit` on this machine that this GPU can be used with.

    Raises:
        NoNvcc: there is none.
        NoCuda: a part of it is missing, or it does not fit driver or GPU; said of the first.
    """
    reasons = []
    for nvcc, version in _compilers():
        try:
            return _toolkit_of(nvcc, version, gpu)
        except NoCuda as reason:
            reasons.append(reason)
    raise reasons[0] if reasons else NoNvcc(
        f"there is no nvcc, with which Jittor compiles; {_HOW}")


def _toolkit_of(nvcc, version, gpu):
    if version[0] > gpu.driver[0]:
        raise NoCuda(f"{nvcc} is of CUDA {_text(version)}, and the driver runs CUDA "
                     f"{_text(gpu.driver)} at most; update the driver, or install CUDA "
                     f"{gpu.driver[0]}'s toolkit")
    if gpu.capability > _NEWEST and version > gpu.driver:  # its driver compiles what nvcc leaves
        raise NoCuda(f"{nvcc} is of CUDA {_text(version)}, and for this GPU the driver, which runs "
                     f"CUDA {_text(gpu.driver)}, must be as new; update it")
    if version[0] >= 13 and gpu.capability < (7, 5):
        raise NoCuda(f"CUDA {_text(version)} does not know this GPU any more; install CUDA 12's "
                     "toolkit")
    if version < (11, 8) and gpu.capability >= (8, 9):
        raise NoCuda(f"CUDA {_text(version)} ({nvcc}) does not know this GPU yet; install CUDA "
                     "12's toolkit")
    root = _root_of(nvcc)
    packages = _packages(version[0])
    system = f"/usr/lib/{platform.machine()}-linux-gnu"
    libraries = _libraries(version[0], [
        os.path.join(root, "lib64"), os.path.join(root, "lib"),
        *glob.glob(os.path.join(root, "targets", "*", "lib")),
        *(os.path.join(package, "lib") for package in packages), system, "/usr/lib64", "/usr/lib"])
    headers = _headers([
        os.path.join(root, "include"), *glob.glob(os.path.join(root, "targets", "*", "include")),
        *(os.path.join(package, "include") for package in packages),
        "/usr/include", f"/usr/include/{platform.machine()}-linux-gnu"])
    missing = [f"lib{name}" for name in _NEEDED if f"lib{name}.so" not in libraries]
    missing += [name for name in _NEEDED_HEADERS if name not in headers]
    if missing:
        raise NoCuda(f"{nvcc} is there (CUDA {_text(version)}), but no {', '.join(missing)} of "
                     f"CUDA {version[0]}; {_HOW}")
    return Toolkit(version, root, libraries, headers)


def cache_name(toolkit, gpu):
    """Of Jittor's cache; with other flags Jittor would make an old one anew, without a word."""
    compat = [open(path, "rb").read() for path in sorted(
        glob.glob(os.path.join(_COMPAT, "**", "*.*h"), recursive=True))]
    known = repr((toolkit.version, toolkit.root, sorted(toolkit.libraries.items()), compat,
                  gpu.capability > _NEWEST))
    return f"cuda-{_text(toolkit.version)}-{zlib.crc32(known.encode()):08x}"


def lay_out(toolkit, gpu, folder):
    """Make the folder of links, and set the environment by which Jittor takes it.

    Args:
        toolkit: `find_toolkit`'s.
        gpu: the `GPU`.
        folder: where it is, or is to be; its name tells `cache_name`.

    Raises:
        UserError: a library of it cannot be loaded.
    """
    links = {f"lib64/{name}": path for name, path in toolkit.libraries.items()}
    links.update((f"include/{name}", path) for name, path in toolkit.headers.items())
    for part in ("bin", "nvvm"):
        if os.path.isdir(os.path.join(toolkit.root, part)):
            links[part] = os.path.join(toolkit.root, part)
    if not os.path.isdir(folder):
        _make_links(folder, links)
    settings = {"nvcc_path": os.path.join(folder, "bin", "nvcc")}
    if not all(f"lib{name}.so" in toolkit.libraries and f"{name}.h" in toolkit.headers
               for name in _FOR_CONVOLUTIONS):
        settings["conv_opt"] = "1"  # Jittor's name for: without cuDNN
    flags, nvcc_flags = [f'-I"{folder}/compat"'], []
    if toolkit.version[0] >= 13:
        # Members that CUDA 13 has no more, in functions of Jittor's that nothing calls.
        flags += ["-DcomputeMode=major", "-DclockRate=minor"]
        nvcc_flags.append("-std=c++17")  # CUB 3 wants it
    if gpu.capability > _NEWEST:
        nvcc_flags.append("-code=compute_90")  # Jittor has no newer; the driver compiles this
    own_compiler = os.path.join(toolkit.root, "bin", "g++")
    if os.path.exists(own_compiler):  # a distribution's, where the newest g++ is too new for nvcc
        nvcc_flags.append(f"-ccbin={own_compiler}")
    for name, words in (("cc_flags", flags), ("NVCC_APPEND_FLAGS", nvcc_flags)):
        settings[name] = " ".join([*words, os.environ.get(name, "")]).strip()
    place = os.path.join(folder, "lib64")
    settings["LD_LIBRARY_PATH"] = os.pathsep.join(
        filter(None, [place, os.environ.get("LD_LIBRARY_PATH")]))  # of processes from here
    os.environ.update(settings)
    for name in ("cudart", "nvJitLink", "cublasLt"):  # which others need, of this process
        path = os.path.join(place, f"lib{name}.so")
        try:
            if os.path.exists(path):
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise UserError(
                f"CUDA's {os.path.realpath(path)} cannot be loaded ({error}); mend that, or run "
                "with nvcc_path= before the command, on the CPU") from error


def _compilers():
    """(path, version) of each nvcc that answers; the user's choice first, then the newest."""
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX")]
    candidates = [os.path.join(folder, "bin", "nvcc") for folder in filter(None, folders)]
    candidates.append(shutil.which("nvcc"))
    versions = sorted(glob.glob("/usr/local/cuda-*"), reverse=True,
                      key=lambda path: [int(n) for n in re.findall(r"\d+", path)])
    candidates += [os.path.join(folder, "bin", "nvcc") for folder in (
        "/usr/local/cuda", *versions, "/usr", "/opt/cuda",
        *sorted(_in_packages("cu*"), reverse=True))]
    for nvcc in dict.fromkeys(filter(None, candidates)):
        version = re.search(r"release (\d+)\.(\d+)", _output(nvcc, "--version"))
        if version:
            yield nvcc, tuple(map(int, version.groups()))


def _root_of(nvcc):
    """nvcc's own folder; behind a wrapper script it is what nvcc itself reports (--dryrun)."""
    report = _output(nvcc, "--dryrun", "-x", "cu", "-c", os.devnull)
    here = re.search(r"^#\$ _HERE_=(.+)$", report, re.MULTILINE)
    binary = here.group(1).strip() if here else os.path.dirname(os.path.realpath(nvcc))
    return os.path.dirname(os.path.realpath(binary))


def _output(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _packages(major):
    """NVIDIA's packages from PyPI that are of this CUDA, as folders with `include` and `lib`."""
    found = _in_packages(f"cu{major}")
    if _in_packages(f"cuda_runtime/lib/libcudart.so.{major}*"):  # of CUDA 12 and before: one each
        found += [folder for folder in _in_packages("*")
                  if not re.match(r"cu\d+$", os.path.basename(folder))]
    if _is_installed(f"nvidia-cudnn-cu{major}"):  # there is one folder for all of its kinds
        found += _in_packages("cudnn")
    return found


def _is_installed(package):
    import importlib.metadata  # here, as a Python without it is to be told so

    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _in_packages(pattern):
    folders = [*site.getsitepackages(), *sys.path]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [path for folder in dict.fromkeys(folders)
            for path in glob.glob(os.path.join(glob.escape(folder), "nvidia", pattern))]


def _libraries(major, folders):
    """{name: path} of a CUDA's libraries in these folders, with a plain libX.so for each."""
    found = {}
    for folder in folders:
        for name in sorted(os.listdir(folder) if os.path.isdir(folder) else []):
            if _LIBRARY.match(name):
                found.setdefault(name, os.path.join(folder, name))
    for name in [name for name in found if ".so" in name]:
        plain = name.partition(".so")[0] + ".so"
        if plain in ("libcudart.so", "libcublas.so", "libcublasLt.so"):
            # Not another CUDA's, where several are installed; CUDA 11 has libcudart.so.11.0.
            own = next((other for other in sorted(found) if re.match(
                rf"{re.escape(plain)}\.{major}(\.|$)", other)), None)
            found.pop(plain, None)
            if own:
                found[plain] = found[own]
        else:
            found.setdefault(plain, found[name])
    for name, part in _CUDNN_9.items():
        if part in found:
            found.setdefault(name, found[part])
    return found


def _headers(folders):
    """{name: path}; of the system's folders those asked for alone, as compilers look there."""
    found = {}
    for folder in folders:
        system = folder.startswith("/usr/include")
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if not system or name in _NEEDED_HEADERS or name.startswith(
                    ("cudnn", "cufft", "cusparse")):
                found.setdefault(name, os.path.join(folder, name))
    return found


def _make_links(folder, links):
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    temporary = tempfile.mkdtemp(dir=os.path.dirname(folder))
    for name, path in links.items():
        link = os.path.join(temporary, name)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.realpath(path), link)
    shutil.copytree(_COMPAT, os.path.join(temporary, "compat"))
    try:
        os.rename(temporary, folder)
    except OSError:  # another process has made it at the same time
        shutil.rmtree(temporary)


def _text(version):
    return ".".join(map(str, version))
