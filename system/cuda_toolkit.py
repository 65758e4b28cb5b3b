"""Finds CUDA on this machine and lays it out as Jittor 1.3.11 looks for it, off-line.

Jittor opens `bin/nvcc`, `include/*.h` and `lib64/lib*.so` of one folder, under the names that a
full installation of CUDA 11 or 12 has. What people have is an nvcc behind a wrapper, conda's
folders, a distribution's packages, or PyTorch's (site-packages/nvidia/*: libraries without nvcc and
without those names), and CUDA 13 and cuDNN 9, which Jittor is older than. So one folder of links is
made in Jittor's home, and models/cuda_compat/ has what the newer headers lack.
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
import zlib
from typing import List, NamedTuple, Tuple

COMPAT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda_compat")
_NEEDED = ("cudart", "cublas", "cublasLt", "curand")  # libraries; …
_NEEDED_HEADERS = ("cuda_runtime.h", "cublas_v2.h", "curand.h")
_FOR_CONVOLUTIONS = ("cudnn", "cufft", "cusparse")  # … of which Jittor takes all or none
_LIBRARY = re.compile(
    r"lib(cudart|cublas\w*|curand|cufft|cusparse|cudnn\w*|nvJitLink)\.so(\.\d+)*$")
# What Jittor asks cuDNN for by name, and where cuDNN 9 has it.
_CUDNN_9 = {f"libcudnn_{part}_{use}.so": f"libcudnn_{part}.so.9"
            for part in ("ops", "cnn") for use in ("infer", "train")}
_HOW = ("install CUDA's toolkit (https://developer.nvidia.com/cuda-downloads, or conda install -c "
        "nvidia cuda-toolkit)")


class NoCuda(Exception):
    """Why a GPU that is there cannot be used, and what helps."""


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
        headers, libraries: folders, of which the first that has a name counts.
    """

    version: Tuple[int, int]
    root: str
    headers: List[str]
    libraries: List[str]


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
    """The `Toolkit` to use this GPU with.

    Raises:
        NoCuda: there is none, a part of it is missing, or it does not fit driver or GPU.
    """
    nvcc, version = _find_nvcc()
    if version[0] > gpu.driver[0]:
        raise NoCuda(f"{nvcc} is of CUDA {_text(version)}, and the driver runs CUDA "
                     f"{_text(gpu.driver)} at most; update the driver, or install CUDA "
                     f"{gpu.driver[0]}'s toolkit")
    if version[0] >= 13 and gpu.capability < (7, 5):
        raise NoCuda(f"CUDA {_text(version)} does not know this GPU any more; install CUDA 12's "
                     "toolkit")
    if version < (11, 8) and gpu.capability >= (8, 9):
        raise NoCuda(f"CUDA {_text(version)} ({nvcc}) does not know this GPU yet; install CUDA "
                     "12's toolkit")
    root = _root_of(nvcc)
    packages = _packages(version[0])
    system = f"/usr/lib/{platform.machine()}-linux-gnu"
    toolkit = Toolkit(
        version, root,
        [os.path.join(root, "include"), *glob.glob(os.path.join(root, "targets", "*", "include")),
         *(os.path.join(package, "include") for package in packages),
         "/usr/include", f"/usr/include/{platform.machine()}-linux-gnu"],
        [os.path.join(root, "lib64"), os.path.join(root, "lib"),
         *glob.glob(os.path.join(root, "targets", "*", "lib")),
         *(os.path.join(package, "lib") for package in packages), system, "/usr/lib"])
    libraries, headers = _libraries(toolkit), _headers(toolkit)
    missing = [f"lib{name}" for name in _NEEDED if f"lib{name}.so" not in libraries]
    missing += [name for name in _NEEDED_HEADERS if name not in headers]
    if missing:
        raise NoCuda(f"{nvcc} is there (CUDA {_text(version)}), but no {', '.join(missing)} of "
                     f"CUDA {version[0]}; {_HOW}")
    return toolkit


def lay_out(toolkit, gpu, home):
    """Make the folder of links, and set the environment by which Jittor takes it.

    Args:
        toolkit: `find_toolkit`'s.
        gpu: the `GPU`.
        home: Jittor's.
    """
    links = {f"lib64/{name}": path for name, path in _libraries(toolkit).items()}
    links.update((f"include/{name}", path) for name, path in _headers(toolkit).items())
    for part in ("bin", "nvvm"):
        if os.path.isdir(os.path.join(toolkit.root, part)):
            links[part] = os.path.join(toolkit.root, part)
    convolutions = all(f"lib64/lib{name}.so" in links for name in _FOR_CONVOLUTIONS)
    digest = zlib.crc32(repr(sorted(links.items())).encode())
    folder = os.path.join(home, ".cache", "jittor",
                          f"toolkit-{_text(toolkit.version)}-{digest:08x}")
    if not os.path.isdir(folder):
        _make_links(folder, links)
    flags = [f'-I"{COMPAT}"']  # for a shell
    settings = {"nvcc_path": os.path.join(folder, "bin", "nvcc")}
    if not convolutions or not {"cudnn.h", "cufft.h", "cusparse.h"} <= {
            os.path.basename(name) for name in _headers(toolkit)}:
        settings["conv_opt"] = "1"  # Jittor's name for: without cuDNN
    nvcc_flags = []
    if toolkit.version[0] >= 13:
        # Members that CUDA 13 has no more, in functions of Jittor's that nothing calls.
        flags += ["-DcomputeMode=major", "-DclockRate=minor"]
        nvcc_flags.append("-std=c++17")  # CUB 3 wants it
    if gpu.capability > (9, 0):
        nvcc_flags.append("-code=compute_90")  # Jittor has no newer; the driver compiles this
    for name, words in (("cc_flags", flags), ("NVCC_APPEND_FLAGS", nvcc_flags)):
        settings[name] = " ".join([*words, os.environ.get(name, "")]).strip()
    libraries = os.path.join(folder, "lib64")
    settings["LD_LIBRARY_PATH"] = os.pathsep.join(
        filter(None, [libraries, os.environ.get("LD_LIBRARY_PATH")]))  # of processes from here
    os.environ.update(settings)
    for name in ("cudart", "nvJitLink", "cublasLt"):  # which others need, of this process
        if os.path.exists(os.path.join(libraries, f"lib{name}.so")):
            ctypes.CDLL(os.path.join(libraries, f"lib{name}.so"), ctypes.RTLD_GLOBAL)


def _find_nvcc():
    """(path, version) of the first nvcc that answers."""
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX")]
    folders += ["/usr/local/cuda", *sorted(glob.glob("/usr/local/cuda-*"), reverse=True),
                "/usr", "/opt/cuda", *sorted(_in_packages("cu*"), reverse=True)]
    candidates = [shutil.which("nvcc"), *(os.path.join(folder, "bin", "nvcc")
                                          for folder in folders if folder)]
    for nvcc in filter(None, candidates):
        version = re.search(r"release (\d+)\.(\d+)", _output(nvcc, "--version"))
        if version:
            return nvcc, tuple(map(int, version.groups()))
    raise NoCuda(f"there is no nvcc, with which Jittor compiles; {_HOW}")


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
    return found + _in_packages("cudnn")


def _in_packages(pattern):
    folders = [*site.getsitepackages(), *sys.path]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [path for folder in dict.fromkeys(folders)
            for path in glob.glob(os.path.join(glob.escape(folder), "nvidia", pattern))]


def _libraries(toolkit):
    """{name in lib64: path}, with a plain libX.so for each."""
    found = {}
    for folder in toolkit.libraries:
        for name in sorted(os.listdir(folder) if os.path.isdir(folder) else []):
            if _LIBRARY.match(name):
                found.setdefault(name, os.path.join(folder, name))
    major = toolkit.version[0]
    for name in list(found):
        plain = name.partition(".so")[0] + ".so"
        if plain in ("libcudart.so", "libcublas.so", "libcublasLt.so"):
            own = f"{plain}.{major}"  # not another CUDA's, where several are installed
            found.pop(plain, None)
            if own in found:
                found[plain] = found[own]
        else:
            found.setdefault(plain, found[name])
    for name, part in _CUDNN_9.items():
        if part in found:
            found.setdefault(name, found[part])
    return found


def _headers(toolkit):
    """{name in include: path}; of the system's folders cuDNN's alone, as compilers look there."""
    found = {}
    for folder in toolkit.headers:
        system = folder.startswith("/usr/include")
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if not system or name in _NEEDED_HEADERS or name.startswith(
                    ("cudnn", "cufft", "cusparse")):
                found.setdefault(name, os.path.join(folder, name))
    return found


def _make_links(folder, links):
    temporary = f"{folder}.{os.getpid()}"
    for name, path in links.items():
        link = os.path.join(temporary, name)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.realpath(path), link)
    try:
        os.rename(temporary, folder)
    except OSError:  # another process has made it at the same time
        shutil.rmtree(temporary)


def _text(version):
    return ".".join(map(str, version))
