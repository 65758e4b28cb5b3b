"""Jittor as pip builds it: its own source with the patches of third_party/jittor, and no other."""

import subprocess
import sys
from pathlib import Path

import jittor as jt
import jittor_utils
import numpy as np
import pytest

from system import runtime
from tests.workplace import ROOT

sys.path.insert(0, str(Path(ROOT, "third_party", "jittor")))
import mended_jittor

PATCH = """\
Why.

--- a/python/a.h
+++ b/python/a.h
@@ -7,3 +7,4 @@ in a function
 one
-two
+2
+and more
 three
@@ -20,1 +21,1 @@
-last
+the last
"""
PATCHES = sorted(mended_jittor.PATCHES.glob("*.patch"))
SITE = Path(jittor_utils.__file__).parent.parent


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_the_installed_jittor_has_each_patch(patch):
    """`pip install -r requirements.txt` is to be run again after a patch has changed."""
    for path, _, new in mended_jittor.parts(patch):
        if path.startswith("python/"):  # not setup.py
            text = (SITE / path[len("python/"):]).read_text(encoding="utf-8")
            assert text.count(new) == 1, f"{path} has not once:\n{new}"


def test_each_patch_says_why_and_the_readme_lists_it():
    readme = (mended_jittor.PATCHES.parent / "README.md").read_text(encoding="utf-8")
    assert len(PATCHES) == readme.count(".patch` |")
    for patch in PATCHES:
        assert f"`{patch.name}`" in readme
        assert not patch.read_text(encoding="utf-8").startswith("---")


def test_the_version_is_that_which_scripts_ask_for():
    assert runtime.JITTOR == jt.__version__
    assert f"'{runtime.JITTOR}'" in (mended_jittor.PATCHES / "version.patch").read_text()


@pytest.mark.parametrize("text, times", [
    ("zero\none\ntwo\nthree\nlast\n", 1),
    ("zero\none\nthree\nlast\n", 0),
    ("one\ntwo\nthree\none\ntwo\nthree\nlast\n", 2),
])
def test_a_patch_is_applied_where_its_lines_stand_once(tmp_path, text, times):
    patch, file = tmp_path / "p.patch", tmp_path / "python" / "a.h"
    file.parent.mkdir()
    patch.write_text(PATCH)
    file.write_text(text)
    if times == 1:
        mended_jittor.apply(patch, tmp_path)
        assert file.read_text() == "zero\none\n2\nand more\nthree\nthe last\n"
    else:
        with pytest.raises(SystemExit, match=f"p.patch: {times} times, not once, in python/a.h"):
            mended_jittor.apply(patch, tmp_path)


def test_a_source_of_another_content_is_refused(tmp_path, monkeypatch, capfd):
    index, target = tmp_path / "index", tmp_path / "target"
    for folder in (index, target):
        folder.mkdir()
    (index / "jittor-1.3.11.0.tar.gz").write_bytes(b"another")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(subprocess.CalledProcessError):
        mended_jittor.download(target)
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32",
                                   "int64", "float16", "float32", "float64"])
def test_values_go_from_numpy_to_jittor_and_back(dtype):
    values = np.array([[1, 0, 7], [100, 5, 2]], dtype)
    with jt.flag_scope(auto_convert_64_to_32=0):
        for array in (values, values.T, values[:, ::2], values[::-1], values[:0]):
            var = jt.array(array)
            assert np.array_equal(var.numpy(), array)
            assert var.numpy().dtype == array.dtype
        items = [jt.array(values.reshape(-1)[i:i + 1]).item() for i in range(values.size)]
    assert items == values.reshape(-1).tolist()


def test_numpys_numbers_index_a_var():
    rows = jt.array([[1, 2], [3, 4]])
    for kind in (np.int8, np.int64, np.uint8):
        assert rows[kind(1)].numpy().tolist() == [3, 4]
