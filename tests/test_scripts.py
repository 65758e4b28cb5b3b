"""train.py and test.py as users run them, on a tiny set of coloured squares."""

import contextlib
import csv
import os
import pty
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from models.parameter_count import in_words
from runs.log import read_log
from runs.record import read_record
from system.files import read_pickle, write_pickle
from tests.workplace import ROOT, random_weights, run

pytestmark = pytest.mark.slow


def test_every_image_gets_five_different_labels(trained):
    _, lines = trained
    assert [line.split()[0] for line in lines] == [f"image_{i}.png" for i in range(12)]
    for line in lines:
        labels = [int(label) for label in line.split()[1:]]
        assert len(set(labels)) == len(labels) == 5 and set(labels) <= set(range(6))


def test_the_same_seed_gives_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    weights, output = tmp_path / "weights", tmp_path / "again.txt"
    settings = [f"output.checkpoint_dir={weights}", f"output.cache_dir={tmp_path / 'cache'}",
                "workers=0"]
    for script, arguments in (("train.py", []), ("test.py", ["--output", output])):
        done = run(script, folder, *arguments, *settings)
        assert done.returncode == 0, done.stderr[-2000:]
    for name in ("prompt_lora.pkl", "head.pkl"):
        ours, first = (read_pickle(str(place / name)) for place in (weights, folder / "weights"))
        for key in set(ours) - {"config"}:
            np.testing.assert_equal(ours[key], first[key], err_msg=f"{name} {key}")
    assert output.read_bytes() == (folder / "first.txt").read_bytes()


def test_labels_and_ablation_are_reported(trained, tmp_path):
    folder, _ = trained
    done = run("test.py", folder, "--output", tmp_path / "r.txt", "--ablate", "--labels",
               folder / "labels.txt")
    assert done.returncode == 0, done.stderr[-2000:]
    for part in ("zero-shot", "+ learned prompt, half", "+ queue average", "+ LoRA", "+ head",
                 "+ channel re-weighting", "+ MTA", "+ OOD", "AUROC", "FPR95", "harmonic mean",
                 "Animal", "Car"):
        assert part in done.stdout, part
    ranked = [line.split() for line in (tmp_path / "r.txt").read_text().splitlines()]
    right = np.mean([int(line[1]) == i % 6 for i, line in enumerate(ranked)])
    total = next(line for line in done.stdout.splitlines() if line.startswith("all"))
    assert f"top-1 {100 * right:.2f}" in total


@pytest.mark.parametrize("mode", ["few-shot", "zero-shot"])
def test_images_can_be_judged_together(trained, tmp_path, mode):
    folder, _ = trained
    done = run("test.py", folder, "--output", tmp_path / "r.txt", "--ablate", "--labels",
               folder / "labels.txt", f"transduction.mode={mode}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "+ all images together" in done.stdout
    ranked = [line.split() for line in (tmp_path / "r.txt").read_text().splitlines()]
    assert len(ranked) == 12 and all(len(set(line[1:])) == 5 for line in ranked)
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shares = np.array([[float(row[f"probability_{i}"]) for i in range(1, 6)] for row in rows])
    assert (np.diff(shares, axis=1) <= 0).all() and (shares.sum(axis=1) > 0.5).all()


def test_a_run_leaves_its_log_and_its_page(trained, tmp_path):
    folder, _ = trained
    weights = tmp_path / "weights"
    shutil.copytree(folder / "weights", weights)
    settings = [f"output.checkpoint_dir={weights}", "--output", tmp_path / "r.txt"]
    done = run("test.py", folder, *settings, "--ablate", "--labels", folder / "labels.txt")
    assert done.returncode == 0, done.stderr[-2000:]
    log = read_log(str(weights))
    assert [line["epoch"] for line in log if line["stage"] == "tune"] == [1, 2]
    assert len([line for line in log if line["stage"] == "head"]) == 20
    assert log[-1]["stage"] == "test" and 0 <= log[-1]["harmonic_mean"] <= 1
    page = (weights / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 8 and page.count("<h2>") == 8
    (weights / "report.html").unlink()
    done = run("test.py", folder, *settings)  # no labels, so no page of its own accord
    assert done.returncode == 0 and not (weights / "report.html").exists()
    done = subprocess.run([sys.executable, os.path.join(ROOT, "report.py"), str(weights)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "No labels" in (weights / "report.html").read_text(encoding="utf-8")


def test_shipped_weights_stay_as_they_are(trained, tmp_path):
    folder, lines = trained
    before = {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}
    own = tmp_path / "own"
    done = run("test.py", folder, f"output.checkpoint_dir={own}", "--output", tmp_path / "r.txt",
               f"output.shipped_dir={folder / 'weights'}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{folder / 'weights'}: the shipped weights, as {own} has none" in done.stderr
    assert (tmp_path / "r.txt").read_text().splitlines() == lines
    assert sorted(os.listdir(own)) == ["log.jsonl", "test.pkl"]
    after = {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}
    assert after == before
    counts = read_record(str(own))["parameters"]
    assert list(counts) == ["CLIP", "LoRA", "learned prompts", "head", "total"]
    assert f"parameters: {in_words(counts)}\n" in done.stderr


def test_results_and_the_bar_never_share_a_line(trained, tmp_path):
    """On one terminal, as predict.py is mostly used."""
    folder, _ = trained
    (tmp_path / "torn.jpg").write_bytes(b"no picture")
    images = [str(folder / "Dataset" / "TestSetB" / f"image_{i}.png") for i in range(2)]
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "predict.py"), str(folder / "tiny.yaml"), images[0],
         str(tmp_path / "torn.jpg"), images[1], "test.batch_size=1"],
        cwd=tmp_path, stdout=terminal, stderr=terminal)
    os.close(terminal)
    said = b""
    with contextlib.suppress(OSError):  # what a closed terminal gives at its end
        while True:
            said += os.read(master, 4096)
    os.close(master)
    assert process.wait() == 2
    shown = []  # what a terminal shows: what follows a carriage return stands over what was there
    for line in said.decode().replace("\r\n", "\n").split("\n"):
        visible = ""
        for part in line.split("\r"):
            visible = part + visible[len(part):]
        shown.append(visible.rstrip())
    assert "images:" in said.decode() and set(images) <= set(shown)
    for line in shown:
        assert line.count("images:") == 0 or line.startswith("images:") and " % " not in line
    assert sum(line.startswith("warning: ") for line in shown) == 1
    assert sum(bool(re.fullmatch(r" +[0-9.]+ %  .*", line)) for line in shown) == 10


def test_a_folder_that_cannot_be_written_costs_the_report_alone(trained, tmp_path):
    folder, lines = trained
    weights = tmp_path / "weights"
    shutil.copytree(folder / "weights", weights)
    (weights / "test.pkl").unlink()
    (weights / "test.pkl").mkdir()  # root may write anywhere, but not a file over a folder
    done = run("test.py", folder, f"output.checkpoint_dir={weights}", "--output",
               tmp_path / "r.txt")
    assert done.returncode == 0 and "warning: no report: " in done.stderr
    assert (tmp_path / "r.txt").read_text().splitlines() == lines


def test_a_sweep_trains_and_tests_every_combination(workplace, tmp_path):
    done = run("train.py", workplace, f"output.checkpoint_dir={tmp_path}", "train.epochs=1",
               "--sweep", "seed=1,2", "lora.positions=[1]")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) >= 2 and done.stdout.splitlines()[-1].split()[1] == "2"
    for seed in (1, 2):
        left = os.listdir(tmp_path / f"seed={seed},lora.positions=[1]")
        assert {"head.pkl", "log.jsonl", "test.pkl", "result.txt"} <= set(left)


def test_an_image_that_cannot_be_decoded_still_gets_a_line(trained, tmp_path):
    folder, lines = trained
    data = tmp_path / "Dataset"
    shutil.copytree(folder / "Dataset", data)
    (data / "TestSetB" / "image_5.png").write_bytes(b"no picture")
    done = run("test.py", folder, "--output", tmp_path / "r.txt", f"data.root={data}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warning:" in done.stderr and "image_5.png" in done.stderr
    ours = (tmp_path / "r.txt").read_text().splitlines()
    assert len(ours) == 12 and len(ours[5].split()) == 6
    assert [line for line in ours if "image_5" not in line] == [
        line for line in lines if "image_5" not in line]


def test_without_lora_the_prompt_alone_is_trained(trained, tmp_path):
    folder, _ = trained
    settings = [f"output.checkpoint_dir={tmp_path / 'w'}", "lora.encoder=none",
                "head.channel_reweighting=false", "mta.views=1", "ood.score=winner"]
    for script, more in (("train.py", []), ("test.py", ["--output", tmp_path / "r.txt"])):
        done = run(script, folder, *settings, *more)
        assert done.returncode == 0, done.stderr[-2000:]
    stage_1 = read_pickle(str(tmp_path / "w" / "prompt_lora.pkl"))
    assert stage_1["lora"] == {} and len(stage_1["contexts"]) == 2
    assert np.abs(stage_1["contexts"][1] - stage_1["contexts"][0]).max() > 0
    assert len((tmp_path / "r.txt").read_text().splitlines()) == 12


def test_train_sh_runs_both_stages(workplace, tmp_path):
    config = yaml.safe_load((workplace / "tiny.yaml").read_text())
    config["output"] = {"checkpoint_dir": str(tmp_path / "w"), "cache_dir": str(tmp_path / "c")}
    config["train"]["epochs"] = 1
    config["prompts"]["dir"] = "prompts"  # beside the scripts
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "else where").mkdir()
    done = subprocess.run(["bash", os.path.join(ROOT, "train.sh"), "../short.yaml"],
                          cwd=tmp_path / "else where", capture_output=True, text=True, timeout=500,
                          env={**os.environ, "PATH": os.path.dirname(sys.executable) + ":"
                               + os.environ["PATH"]})
    assert done.returncode == 0, done.stderr[-2000:]
    assert os.listdir(tmp_path / "else where") == []
    assert sorted(os.listdir(tmp_path / "w")) == ["head.pkl", "log.jsonl", "prompt_lora.pkl"]


def spoil(name, content):
    def change(data):
        (data / name).write_bytes(content)
    return change


def remove(name):
    def change(data):
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return change


def spoil_a_class(data):
    for path in (data / "TrainSet" / "TrainSet" / "1").iterdir():
        path.write_bytes(b"no picture")


@pytest.mark.parametrize("script, change, settings, words", [
    ("train.py", remove("classes.txt"), [], ["classes.txt", "README"]),
    ("train.py", remove("train.txt"), [], ["train.txt"]),
    ("train.py", remove("TrainSet/TrainSet/2"), [], ["train.txt, line 7", "TrainSet/2/0.jpg"]),
    ("train.py", spoil("train.txt", b"TrainSet/0/0.jpg 6\n"), [], ["label 6", "0 to 5"]),
    ("train.py", spoil("train.txt", b"../../x.jpg 0\n"), [], ["line 1", "'../../x.jpg' leaves"]),
    ("train.py", spoil_a_class, [], ["the class 'tree frog'"]),
    ("train.py", None, ["clip.weights=/nowhere/clip.pkl"], ["/nowhere/clip.pkl"]),
    ("train.py", None, ["lora.rnak=3"], ["lora.rnak", "lora.rank"]),
    ("train.py", None, ["lora.positions=[5]"], ["lora.positions"]),
    ("train.py", None, ["--seed", "2"], ["write seed=2"]),
    ("train.py", None, ["prompts.dir=/nowhere"], ["/nowhere", "prompts.dir"]),
    ("test.py", remove("TestSetB"), [], ["TestSetB"]),
    ("test.py", None, ["output.checkpoint_dir=/nowhere"], ["/nowhere", "train.py"]),
    ("test.py", None, ["lora.rank=2"], ["lora.rank: 4 when trained, 2 now"]),
    ("test.py", spoil("classes.txt", b"A_b 0\nA_c 1\n"), [], ["another class list", "6", "2"]),
    ("test.py", None, ["--labels", "/nowhere/l.txt"], ["/nowhere/l.txt"]),
    ("test.py", None, ["--ablate"], ["--labels"]),
])
def test_a_mistake_ends_in_one_line(trained, tmp_path, script, change, settings, words):
    folder, _ = trained
    arguments = list(settings)
    if change:
        shutil.copytree(folder / "Dataset", tmp_path / "Dataset")
        change(tmp_path / "Dataset")
        arguments.append(f"data.root={tmp_path / 'Dataset'}")
    if script == "test.py":
        arguments += ["--output", tmp_path / "r.txt"]
    else:
        arguments.append(f"output.checkpoint_dir={tmp_path / 'weights'}")
    done = run(script, folder, *arguments)
    assert done.returncode == 2, done.stderr[-2000:]
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == error[0]
    for word in words:
        assert word in error[0]
    assert not os.path.exists(tmp_path / "r.txt") and not os.path.exists(tmp_path / "weights")


def test_a_missing_config_is_named(workplace):
    for script in ("train.py", "test.py"):
        done = run(script, workplace, config="none.yaml")
        assert done.returncode == 2 and "none.yaml" in done.stderr.splitlines()[-1]


def test_weights_of_another_model_are_refused(trained, tmp_path):
    folder, _ = trained
    state = random_weights()
    state["visual.proj"] = state["visual.proj"] + 1
    write_pickle(str(tmp_path / "other.pkl"), state)
    done = run("test.py", folder, f"clip.weights={tmp_path / 'other.pkl'}", "--output",
               tmp_path / "r.txt")
    assert done.returncode == 2
    assert "other CLIP weights" in done.stderr.splitlines()[-1]
