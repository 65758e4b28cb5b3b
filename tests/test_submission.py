"""Valid entries pass, and what makes one invalid is named with its line."""

import os
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

from runs.submission import check_entry, pack_entry
from system.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ["image_1.jpg", "my image.jpg"]
VALID = "image_1.jpg 0 1 2 3 4\nmy image.jpg 9 8 7 6 5\n"


@pytest.fixture
def entry(tmp_path):
    """entry(text): the path of a result file."""
    def write(text):
        path = tmp_path / "result.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
    return write


@pytest.mark.parametrize("text", [VALID, VALID.rstrip("\n"),
                                  "\n".join(VALID.splitlines()[::-1]) + "\n"])
def test_a_valid_entry_passes(entry, text):
    check_entry(entry(text), NAMES, 10)


@pytest.mark.parametrize("text, message", [
    (VALID.replace(" 4\n", "\n"), "line 1.*5 labels"),
    (VALID.replace("5", "five"), "line 2.*5 labels"),
    (VALID.replace("5", "-5"), "line 2.*5 labels"),
    (VALID.replace("0", "٠"), "line 1.*5 labels"),
    (VALID.replace("5", "9"), "line 2: a label is there twice"),
    (VALID.replace("5", "10"), "label 10 is outside.*0 to 9"),
    (VALID.replace("my", "your"), "line 2: 'your image.jpg' is no test image"),
    (VALID + VALID, "line 3: 'image_1.jpg' has a line above"),
    (VALID.splitlines()[0], "no line for 1 of 2 .* 'my image.jpg'"),
    (VALID.replace("\n", "\n\n", 1), "line 2"),
    ("", "no line for 2 of 2"),
    (b"\xff\xfe", "not UTF-8"),
])
def test_what_is_wrong_is_named(entry, text, message):
    with pytest.raises(UserError, match=message):
        check_entry(entry(text), NAMES, 10)


def test_fewer_than_five_classes_need_fewer_labels(entry):
    check_entry(entry("image_1.jpg 0 1 2\nmy image.jpg 2 1 0\n"), NAMES, 3)


def test_the_archive_is_the_same_every_time(entry, tmp_path):
    contents = []
    for name in ("a.zip", "b.zip"):
        pack_entry(entry(VALID), str(tmp_path / name))
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["result.txt"]
        assert archive.read("result.txt").decode() == VALID


def test_the_command(entry, tmp_path):
    (tmp_path / "classes.txt").write_text("".join(f"Animal_{i} {i}\n" for i in range(10)))
    (tmp_path / "Test").mkdir()
    for name in NAMES:
        Image.new("RGB", (4, 4)).save(tmp_path / "Test" / name)
    (tmp_path / "Test" / "notes.md").write_text("")
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: {tmp_path}}}\n")
    command = [sys.executable, "-m", "runs.submission", entry(VALID), str(config),
               "--output", str(tmp_path / "result.zip"), "data.test_dir=Test"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    warning, told = done.stderr.splitlines()
    assert done.returncode == 0 and "valid entry of 2 images" in told
    assert warning.startswith("warning: ") and "notes.md" in warning
    assert zipfile.is_zipfile(tmp_path / "result.zip")

    (tmp_path / "result.zip").unlink()
    (tmp_path / "Test" / "notes.md").unlink()
    entry(VALID.replace("5", "9"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "result.zip").exists()
