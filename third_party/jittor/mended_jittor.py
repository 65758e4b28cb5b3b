"""A build backend (PEP 517): Jittor's own source from the package index, with patches/ applied."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PATCHES = Path(__file__).resolve().parent / "patches"
SOURCE = ("jittor==1.3.11.0 --hash=sha256:"
          "7555e2cf624febed57722aa308c8846384ec3ede9659c93e4605dfd115d6890c")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """The name of the wheel that is written into `wheel_directory`."""
    from setuptools import build_meta

    wheel_directory = os.path.abspath(wheel_directory)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        tree = download(folder)
        for patch in sorted(PATCHES.glob("*.patch")):
            apply(patch, tree)
        os.chdir(tree)  # where setuptools looks for what to build
        try:
            return build_meta.build_wheel(wheel_directory, config_settings)
        finally:
            os.chdir(before)


def download(folder):
    """Jittor's source in a folder, as pip finds it: its index, mirror, proxy and checksum."""
    wanted = Path(folder, "source.txt")
    wanted.write_text(SOURCE)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                    "--no-build-isolation", "--no-binary=jittor", "--require-hashes",
                    f"--requirement={wanted}", f"--dest={folder}"], check=True)
    archive, = Path(folder).glob("jittor-*.tar.gz")
    shutil.unpack_archive(str(archive), folder)
    return Path(folder, archive.name[:-len(".tar.gz")])


def apply(patch, tree):
    """Apply a unified diff to the files below a folder, as strictly as can be.

    Raises:
        SystemExit: the lines that a part of it replaces are not in their file, or more than once.
    """
    for path, old, new in parts(patch):
        file = tree / path
        text = file.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{patch.name}: {text.count(old)} times, not once, in {path}:\n{old}")
        file.write_text(text.replace(old, new), encoding="utf-8")


def parts(patch):
    """Of each part of a unified diff: a path, the lines before and the lines after."""
    _, *files = re.split(r"^--- a/.*\n\+\+\+ b/(.*)\n", patch.read_text(encoding="utf-8"),
                         flags=re.MULTILINE)
    for path, changes in zip(files[::2], files[1::2]):
        for part in re.split(r"^@@ .*\n", changes, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            yield (path, *("".join(line[1:] for line in lines if line[0] in kinds)
                           for kinds in (" -", " +")))
