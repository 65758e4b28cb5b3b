"""The project's files are found from any folder, and what cannot be written is told at once."""

import os
import shutil
import subprocess
import sys

import pytest

from configs import SAMPLE, load_config
from pipeline.checkpoint import trained_folder
from system.errors import UserError
from system.places import beside_scripts, require_writable
from tests.conftest import WITHOUT_ROOTS_RIGHTS
from tests.workplace import ROOT


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["prompts/sample", "test_pkl/sample/clip.pkl", "configs"])
def test_what_is_the_projects_is_found_beside_the_scripts(elsewhere, path):
    assert beside_scripts(path) == os.path.join(ROOT, path)
    (elsewhere / path).mkdir(parents=True)
    assert beside_scripts(path) == path  # what is in the working folder wins


@pytest.mark.parametrize("path", ["nowhere/x.pkl", "ViT-B/32", "/nowhere", os.sep])
def test_what_is_nowhere_is_named_as_it_was(elsewhere, path):
    assert beside_scripts(path) == path


def test_all_places_that_cannot_be_written_are_named_with_what_moves_them(elsewhere):
    (elsewhere / "file").write_text("")
    os.symlink("nowhere", elsewhere / "link")
    require_writable({"--output": "", "output.cache_dir": "a/b/c", "x": str(elsewhere)})
    assert sorted(os.listdir(elsewhere)) == ["file", "link"]  # nothing was made
    with pytest.raises(UserError) as error:
        require_writable({"output.cache_dir": "file/a", "--output": "link", "data.root": "."})
    message = str(error.value)
    assert message.startswith("cannot write to file/a, link; ")
    assert message.endswith("output.cache_dir=FOLDER --output FILE")


@pytest.mark.skipif(os.geteuid() == 0 and not WITHOUT_ROOTS_RIGHTS, reason="root may write")
@pytest.mark.parametrize("script, arguments, settings", [
    ("train.py", [], ["output.checkpoint_dir=", "output.cache_dir=", "data.root="]),
    ("test.py", [], ["--output ", "output.cache_dir=", "data.root="]),
    ("predict.py", [os.path.join(ROOT, "docs", "sample.jpg")], ["output.cache_dir="])])
def test_a_folder_that_is_read_only_costs_no_work(tmp_path, script, arguments, settings):
    tmp_path.chmod(0o555)
    done = subprocess.run([*WITHOUT_ROOTS_RIGHTS, sys.executable, os.path.join(ROOT, script),
                           *arguments], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: cannot write to ")
    for setting in settings:
        assert setting in last
    assert "drawing" not in done.stderr and not os.listdir(tmp_path)


# Shipped weights and one's own


@pytest.fixture
def output(tmp_path):
    """output(*names): the section `output` of a config, with these files in checkpoint_dir."""
    def fill(*names, shipped=True):
        for name in names:
            (tmp_path / "own").mkdir(exist_ok=True)
            (tmp_path / "own" / name).write_bytes(b"")
        config = load_config(SAMPLE, [f"output.checkpoint_dir={tmp_path / 'own'}"]
                             + ["output.shipped_dir=null"] * (not shipped))
        return config.output
    return fill


@pytest.mark.parametrize("names, own, warned", [
    ((), False, False), (("log.jsonl", "test.pkl"), False, False),
    (("head.pkl", "prompt_lora.pkl"), True, False), (("prompt_lora.pkl",), False, True),
    (("unfinished",), False, True), (("head.pkl", "prompt_lora.pkl", "unfinished"), True, True)])
def test_ones_own_weights_are_taken_where_they_are_trained(
        output, tmp_path, monkeypatch, capsys, recwarn, names, own, warned):
    monkeypatch.chdir(tmp_path)
    folder = trained_folder(output(*names))
    assert folder == (str(tmp_path / "own") if own else os.path.join(ROOT, "test_pkl", "sample"))
    assert capsys.readouterr().err.startswith(f"{folder}: the ")
    assert [str(each.message).partition(";")[0] for each in recwarn] == [
        f"a training in {tmp_path / 'own'} has not come to its end"] * warned


def test_without_shipped_weights_ones_own_are_meant(output, tmp_path, capsys):
    assert trained_folder(output(shipped=False)) == str(tmp_path / "own")
    assert capsys.readouterr().err == ""


def test_what_the_first_command_writes_is_ignored_by_git():
    config = load_config(SAMPLE)
    written = [config.output.checkpoint_dir, config.output.cache_dir, config.data.root]

    def git(*words):
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.splitlines()

    if shutil.which("git") is None or not git("rev-parse", "--git-dir"):
        pytest.skip("this is no clone")
    files = [os.path.join(folder, "x.pkl") for folder in written] + [
        "result.txt", "result.csv", "result.zip", "comparison.html", "ViT-B-32.pkl"]
    assert git("check-ignore", "--no-index", *files) == files
    assert git("ls-files", *written) == []
    assert "test_pkl/sample/head.pkl" in git("ls-files", config.output.shipped_dir)
