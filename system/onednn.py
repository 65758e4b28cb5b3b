"""The oneDNN that pip installed: where Jittor finds it, and what it can do on this processor."""

import ctypes
import os

PACKAGE = "onednn-devel-cpu-gomp"
LIBRARY = "libdnnl.so.2"  # of the interface that Jittor's operators are written for
# Where Jittor 1.3.11 looks below its home before it downloads one.
_PLACE = os.path.join(".cache", "jittor", "mkl", "dnnl_lnx_2.2.0_cpu_gomp")
_FASTER_BFLOAT16 = (2, 6)  # before, its products in bfloat16 were slower than those in float32
_AVX512_CORE_BF16 = 0xe7  # dnnl_cpu_isa_avx512_core_bf16


def link_installed(home):
    """Put pip's oneDNN where Jittor looks for its own; whether there is one then.

    Args:
        home: Jittor's.
    """
    place = os.path.join(home, _PLACE)
    # Its library gets the name by which Jittor asks for it.
    source = _installed(os.path.join(os.path.dirname(place), "pip"))
    if source is None:  # one that Jittor downloaded serves as well
        return all(os.path.exists(os.path.join(place, *names)) for names in (
            ("lib", "libmkldnn.so"), ("include", "dnnl.hpp")))
    for name, path in source.items():
        link = os.path.join(place, name)
        if os.path.isdir(link) and not os.path.islink(link):
            continue  # a real download
        _link(link, path)
    return True


def include():
    """The folder of oneDNN's header, where Jittor finds it."""
    return os.path.join(_place(), "include")


def has_bfloat16():
    """Whether oneDNN has products in bfloat16 here that are faster than those in float32."""
    path = os.path.join(_place(), "lib", "libmkldnn.so")
    if os.environ.get("use_mkl") != "1" or not os.path.exists(path):
        return False
    library = ctypes.CDLL(path)
    library.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)
    # A set of bits: each instruction set has those of all that it contains.
    found = library.dnnl_get_effective_cpu_isa() & _AVX512_CORE_BF16
    return tuple(library.dnnl_version()[:2]) >= _FASTER_BFLOAT16 and found == _AVX512_CORE_BF16


def _place():
    from jittor_utils import home
    return os.path.join(home(), _PLACE)


def _link(link, path):
    """Let a link lead to a path, whatever it was before."""
    if os.path.realpath(link) == os.path.realpath(path):
        return
    os.makedirs(os.path.dirname(link), exist_ok=True)
    temporary = f"{link}.{os.getpid()}"
    os.symlink(path, temporary)
    os.replace(temporary, link)  # another process may do the same at the same time


def _installed(names):
    """{'include': …, 'lib': …} of the installed oneDNN package, or None.

    Args:
        names: folder in which its library gets the name by which Jittor asks for it.
    """
    import importlib.metadata  # here, as a Python without it must reach runtime
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    header = next((f for f in files if str(f).endswith("include/dnnl.hpp")), None)
    if header is None:
        return None
    include = os.path.dirname(os.path.normpath(str(header.locate())))
    library = os.path.join(os.path.dirname(include), "lib", LIBRARY)
    if not os.path.exists(library):
        return None
    for name in (LIBRARY, "libmkldnn.so"):
        _link(os.path.join(names, name), library)
    return {"include": include, "lib": names}
