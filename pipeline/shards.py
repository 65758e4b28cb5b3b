"""Arrays of many images, kept in files of some batches each, so that a stopped run goes on."""

import hashlib
import io
import os
import shutil
import warnings
import zipfile
import zlib

import numpy as np

from system import parallel, runtime
from system.errors import UserError, log
from system.files import write_atomically

BATCHES = 4  # a shard; what a killed run loses at most
VERSION = 4  # raised when the same settings give other results, or under other names


class Shards:
    """Computes something for each image of a list, or reads what an earlier run computed.

    A shard is known by its images' names and bytes: one whose images have changed is computed
    anew. Batches are cut at the same places whether shards are there or not, so that the
    results are the same bytes. Several processes share the shards that are missing; a later run
    may have another number of them.

    Args:
        cache_dir: folder for them all.
        kind: what is kept, a word.
        depends_on: plain values that tell all that the results depend on beside the images.
        paths: list (N) of image files.
        batch_size: images a batch.
    """

    def __init__(self, cache_dir, kind, depends_on, paths, batch_size):
        self.folder = _place(cache_dir, kind, depends_on)
        self.paths = paths
        self.batch_size = batch_size
        size = BATCHES * batch_size
        self._rows = [np.arange(start, min(start + size, len(paths)))
                      for start in range(0, len(paths), size)]

    def compute(self, batches, compute, otherwise=None):
        """The arrays of all images.

        Args:
            batches: function of a list of paths that yields (indices, pixels, bar) as
                `data.views.view_batches` does, images that cannot be decoded left out.
            compute: function of a batch's pixels, uint8 array (B, V, S, S, 3), that returns
                {name: array (B, …)}.
            otherwise: {name: array (…)}, what an image that cannot be decoded gets; may be
                left out where all can be.

        Returns:
            {name: array (N, …)} in the first process, None in the others.

        Raises:
            UserError: the processes do not share `cache_dir`.
        """
        arrays = {name: np.repeat(value[None], len(self.paths), axis=0)
                  for name, value in (otherwise or {}).items()}

        def put(rows, found):
            for name, values in found.items():
                if name not in arrays:
                    arrays[name] = np.zeros((len(self.paths), *values.shape[1:]), values.dtype)
                arrays[name][rows] = values

        is_missing = np.zeros(len(self._rows), np.int32)
        if parallel.is_first():
            for shard, rows in enumerate(self._rows):
                found = self._read(shard)
                if found is None:
                    is_missing[shard] = 1
                else:
                    put(rows, found)
        missing = list(np.flatnonzero(parallel.from_first(is_missing)))
        n_missing = sum(len(self._rows[shard]) for shard in missing)
        if 0 < n_missing < len(self.paths):
            log(f"going on: {len(self.paths) - n_missing} of {len(self.paths)} images are done")
        own = missing[parallel.rank()::parallel.size()]
        if own:
            with parallel.own_work():
                self._compute(own, batches, compute, arrays, put)
        parallel.barrier()
        if not parallel.is_first():
            return None
        for shard in sorted(set(missing) - set(own)):
            found = self._read(shard)
            if found is None:
                raise UserError(f"{self._file(shard)}, which another process has written, is not "
                                "here; set output.cache_dir to a folder that all machines share")
            put(self._rows[shard], found)
        return arrays

    def _compute(self, missing, batches, compute, arrays, put):
        """Fill the rows of some shards, and write each when it is done."""
        missing = list(missing)
        rows = np.concatenate([self._rows[shard] for shard in missing])
        for indices, pixels, _ in batches([self.paths[row] for row in rows]):
            put(rows[indices], compute(pixels))
            # The batch's end; all images before it are done, those that cannot be decoded too.
            done = (indices[-1] // self.batch_size + 1) * self.batch_size
            while missing and rows[:done][-1] >= self._rows[missing[0]][-1]:
                self._write(missing.pop(0), arrays)
        for shard in missing:
            self._write(shard, arrays)

    def remove(self):
        """Remove the files."""
        if parallel.is_first():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, shard):
        rows = self._rows[shard]
        checksum = files_checksum([self.paths[row] for row in rows])
        return os.path.join(self.folder, f"{rows[0]:07d}_{checksum:08x}.npz")

    def _read(self, shard):
        """{name: array} of the shard's rows; None where there is no file that is whole."""
        if not os.path.isdir(self.folder):
            return None
        return _read_arrays(self._file(shard))

    def _write(self, shard, arrays):
        _write_arrays(self._file(shard),
                      {name: array[self._rows[shard]] for name, array in arrays.items()})


def kept_arrays(cache_dir, kind, depends_on, compute):
    """The {name: array} that `compute()` gives, or that an earlier run has kept.

    Several processes compute it together.

    Args:
        cache_dir, kind, depends_on: see `Shards`.
    """
    path = f"{_place(cache_dir, kind, depends_on)}.npz"
    arrays = _read_arrays(path)
    if parallel.sum_all(np.array([arrays is None], np.int32))[0]:
        arrays = compute()
        if parallel.is_first():
            _write_arrays(path, arrays)
    return arrays


def _place(cache_dir, kind, depends_on):
    rounded = () if runtime.precision() == "float32" else (runtime.precision(),)
    key = hashlib.sha1(repr((VERSION, depends_on, *rounded)).encode()).hexdigest()[:16]
    return os.path.join(cache_dir, f"{kind}_{key}")


def _read_arrays(path):
    """{name: array} of a file; None where there is none that is whole."""
    if not os.path.exists(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:  # a zip archive: it has checksums
            return dict(saved)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        warnings.warn(f"{path} is damaged; it is computed again", stacklevel=2)
        return None


def _write_arrays(path, arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(path, content.getvalue())


def files_checksum(paths):
    """A CRC-32 of files' names and bytes, in this order; a file that cannot be read has none."""
    checksum = 0
    for path in paths:
        checksum = zlib.crc32(os.path.basename(path).encode("utf-8", "surrogateescape"), checksum)
        if not os.path.isfile(path):  # such as a pipe, which would be waited for
            continue
        try:
            with open(path, "rb") as file:
                while True:
                    block = file.read(1 << 20)
                    if not block:
                        break
                    checksum = zlib.crc32(block, checksum)
        except OSError:
            pass
    return checksum
