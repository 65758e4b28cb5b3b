"""Finds the files that hold a model's weights, and tells what lies there in their place.

Weights are one file, or a folder as Hugging Face's libraries and open_clip write it, or the index
of weights that are divided among several files (shards).
"""

import os

from system.errors import UserError
from system.untrusted import leaves_folder, read_json, shown

# In a folder, the first of them that is there counts, as for the libraries that write them.
_NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin",
          "open_clip_pytorch_model.bin")
_INDEX = ".index.json"
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".pkl")
_HEAD_BYTES = 512
# How a file begins that is no weights: what it is, and what cures it. Letters in lower case.
_STARTS = {
    (b"version https://git-lfs",): (
        "is a Git LFS pointer, not the weights themselves",
        "run 'git lfs pull' in its folder, or download the file"),
    (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<title"): (
        "is a web page or XML, as a download that failed leaves it", "download it again"),
    (b"\x1f\x8b",): ("is compressed by gzip", "unpack it: gunzip, or tar -xzf"),
    (b"bzh", b"\xfd7zxz", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"rar!"): (
        "is a compressed archive", "unpack it"),
    (b"\x89hdf", b"gguf", b"\x93numpy"): (
        "is a format of other libraries (HDF5, GGUF, NumPy)", "give the weights as PyTorch's or as "
        "safetensors")}


def weights_files(path):
    """The files of the weights at a path: one, or the shards of an index.

    Args:
        path: a file, a folder, or an index ('model.safetensors.index.json').

    Returns:
        list of paths; they exist, but for `path` itself where it is no folder.

    Raises:
        UserError: a folder without weights or with several, or an index that cannot be read or
            whose shards are not all there.
    """
    if os.path.isdir(path):
        path = _in_folder(path)
    return _shards(path) if path.endswith(_INDEX) else [path]


def _in_folder(folder):
    names = sorted(os.listdir(folder))
    wanted = [name for name in (*_NAMES, *(name + _INDEX for name in _NAMES)) if name in names]
    if not wanted:
        wanted = [name for name in names if name.endswith((*_ENDINGS, _INDEX))
                  and not name.startswith("adapter_model")]
        if len(wanted) > 1:
            raise UserError(f"{folder} holds several files of weights ({', '.join(wanted[:5])}); "
                            "name one of them")
    if wanted:
        return os.path.join(folder, wanted[0])
    snapshots = os.path.join(folder, "snapshots")  # a model's folder in Hugging Face's cache
    versions = sorted(os.listdir(snapshots)) if os.path.isdir(snapshots) else []
    if len(versions) == 1:
        return _in_folder(os.path.join(snapshots, versions[0]))
    if versions:
        raise UserError(f"{folder} holds several versions; name one of them, such as "
                        f"{os.path.join(snapshots, versions[0])}")
    there = f"it holds {', '.join(map(shown, names[:5]))}" if names else "it is empty"
    raise UserError(f"no weights at {folder}: {there}; name the file of the weights, or the folder "
                    f"with {_NAMES[0]}")


def _shards(index):
    folder = os.path.dirname(index)
    try:
        content = read_json(index)
        names = sorted(set(content["weight_map"].values()))
        if not names or any(leaves_folder(name) for name in names):
            raise ValueError("it names no files, or files of other folders")
    except OSError as error:
        raise UserError(f"cannot read {index}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights ({error}); get it again") from error
    paths = [os.path.join(folder, name) for name in names]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(f"{index} names {len(paths)} files, of which {missing[0]} is missing"
                        + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
                        + "; download what is missing")
    return paths


def first_bytes(path):
    """The first bytes of a file of weights; one that cannot be weights is refused for what it is.

    Raises:
        UserError: no such file, an empty one, a Git LFS pointer, a web page, an archive, …
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise UserError(f"{path} is empty; download it again")
    start = head.lstrip().lower()
    for known, (what, cure) in _STARTS.items():
        if start.startswith(known):
            raise UserError(f"{path} {what}; {cure}")
    if b"ustar" in head[257:263]:
        raise UserError(f"{path} is a tar archive; unpack it: tar -xf")
    if start[:1] in b"{[" and start[1:].lstrip()[:1] in (b'"', b"{", b"[", b"}", b"]"):
        raise UserError(f"{path} is JSON, not the weights themselves; name the file beside it that "
                        "holds them, or the folder")
    return head
