"""The generated world, the sample set drawn from it, and its prompts."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import same_labels
from configs import SAMPLE, load_config
from data.challenge import load_challenge
from data.image_paths import list_images
from data.lists import ClassName, read_classes, read_labels
from models.jclip.tokenizer import encode
from models.prompt import handcrafted_prompts
from prompts import PromptLibrary
from sample.dataset import (
    N_TEST,
    N_TRAIN,
    NEW_DOMAIN,
    SIZE,
    class_name,
    class_names,
    contact_sheet,
    ensure_sample,
    picture,
    sample_classes,
    to_draw,
)
from sample.painting import COLOURS, PAINTING, SKETCH, random_colours
from sample.world import DOMAINS, draw
from system.errors import UserError
from system.files import read_pickle

pytestmark = pytest.mark.slow

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("drawn") / "Dataset")
    ensure_sample(folder)
    return folder


def settings(root):
    return load_config(os.path.join(ROOT, SAMPLE), [f"data.root={root}"]).data


def test_the_sample_set_has_the_challenges_layout(root):
    challenge = load_challenge(settings(root), seed=1)
    domains = {challenge.classes[label].domain for label in challenge.base}
    assert len(challenge.base) >= 60 and len(domains) >= 5
    assert len(challenge.new) >= 12
    assert {challenge.classes[label].domain for label in challenge.new} == {NEW_DOMAIN}
    assert NEW_DOMAIN not in domains
    assert len(challenge.train) == 4 * len(challenge.base)
    assert len(challenge.held_back) == (N_TRAIN - 4) * len(challenge.base)
    paths = list_images(os.path.join(root, "TestSetB"))
    labels = read_labels(os.path.join(root, "labels.txt"), len(challenge.classes))
    assert {os.path.basename(path) for path in paths} == set(labels)
    counts = np.bincount(list(labels.values()), minlength=len(challenge.classes))
    assert (counts == N_TEST).all()
    with Image.open(paths[0]) as image:
        assert image.size == (SIZE, SIZE)


def test_its_classes_are_known_before_it_is_drawn(root, tmp_path):
    assert class_names() == read_classes(os.path.join(root, "classes.txt"))
    assert to_draw(settings(root)) == {}
    new = str(tmp_path / "new" / "Dataset")
    assert list(to_draw(settings(new)).values()) == [os.path.dirname(new)]
    others = load_config(os.path.join(ROOT, SAMPLE), [f"data.root={new}", "data.images=mine"])
    assert to_draw(others.data) == {}  # own pictures are the data set


def test_training_and_test_pictures_differ():
    seen = {picture(5, i).tobytes() for i in range(N_TRAIN + N_TEST)}
    assert len(seen) == N_TRAIN + N_TEST


def test_the_same_pictures_are_drawn_by_any_number_of_processes(root, tmp_path):
    again = str(tmp_path / "again")
    ensure_sample(again, n_processes=1)
    for name in ("classes.txt", "train.txt", "labels.txt", "TestSetB/image_7.jpg",
                 "TestSetB/image_900.jpg"):
        with open(os.path.join(root, name), "rb") as a, open(os.path.join(again, name), "rb") as b:
            assert a.read() == b.read(), name
    # One that is there stays; one of another version is drawn again.
    kept, gone = os.path.join(again, "kept"), os.path.join(again, "classes.txt")
    open(kept, "w").close()
    ensure_sample(again)
    assert os.path.exists(kept)
    os.remove(gone)
    with open(os.path.join(again, "version.txt"), "w") as file:
        file.write("0")
    ensure_sample(again)
    assert os.path.exists(gone) and not os.path.exists(kept)


@pytest.mark.parametrize("version", [None, "1", "1.0", b"\xff"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, version):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    if version is not None:  # many a data set has such a file
        (tmp_path / "version.txt").write_bytes(
            version if isinstance(version, bytes) else version.encode())
    with pytest.raises(UserError, match="something else"):
        ensure_sample(str(tmp_path))
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the sample set to"):
        ensure_sample(str(tmp_path / "file" / "Dataset"))


@pytest.mark.parametrize("style", [SKETCH, PAINTING])
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_combination_can_be_drawn_and_looks_its_own(domain, style):
    """Without nuisances, two combinations never give the same picture."""
    calm = style._replace(clutter=(0, 0), occlusion=0, noise=0, brush=0, hatching=0)
    kind, seen = DOMAINS[domain], {}
    for values in itertools.product(*kind.attributes):
        image = draw(domain, values, calm, 48, np.random.default_rng(3), ("red", "white"))
        assert image.size == (48, 48) and image.mode == "RGB"
        other = seen.setdefault(image.tobytes(), values)
        assert other == values


def test_random_colours_are_known_and_differ():
    rng = np.random.default_rng(0)
    for _ in range(50):
        main, second = random_colours(rng)
        assert main != second and {main, second} <= set(COLOURS)


def test_the_contact_sheet_has_a_row_a_domain():
    assert contact_sheet(columns=3).size == (3 * SIZE, len(DOMAINS) * SIZE)


def test_prompts_are_in_words_that_the_small_clip_knows():
    config = load_config(os.path.join(ROOT, SAMPLE))
    library = PromptLibrary(os.path.join(ROOT, config.prompts.dir))
    known = set(read_pickle(os.path.join(ROOT, config.clip.weights))["token_embedding.rows"])
    names = [ClassName(domain, class_name(domain, values)) for domain, values in sample_classes()]
    texts = handcrafted_prompts(library, names, config.prompts)
    assert len({library.name(name) for name in names}) == len(names)
    for prompts in texts:
        assert len(prompts) >= config.prompts.general + 3, "its file has no descriptions"
        for text in prompts:
            assert set(encode(text)) <= known, text
            assert len(encode(text)) + 2 <= config.prompts.max_tokens


def test_the_set_can_be_drawn_from_the_command_line(root, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    done = subprocess.run([sys.executable, "-m", "sample.dataset", root, "--sheet", str(sheet)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(sheet) as image:
        assert image.size == (12 * SIZE, len(DOMAINS) * SIZE)


@pytest.mark.parametrize("script, arguments, words", [
    ("train.py", ["clip.weights=none.pkl"], ["none.pkl"]),
    ("train.py", ["aux.weights=none.pkl"], ["none.pkl"]),
    ("train.py", ["prompts.dir=none"], ["prompts.dir"]),
    ("test.py", ["lora.rank=2"], ["lora.rank: 4 when trained, 2 now"]),
    ("test.py", ["--labels", "none.txt"], ["none.txt"])])
def test_it_is_drawn_when_nothing_else_is_wrong(tmp_path, script, arguments, words):
    done = subprocess.run([sys.executable, os.path.join(ROOT, script), *arguments], cwd=tmp_path,
                          capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and os.listdir(tmp_path) == []
    for word in words:
        assert word in last


def test_two_runs_give_the_same_bytes_whatever_the_number_of_threads(root, tmp_path):
    results = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        settings = [f"data.root={root}", f"workers={workers}", "train.epochs=1", "prompt.epochs=1",
                    "prompt.queue_every=1", "head.views=2", "mta.views=2",
                    f"output.checkpoint_dir={folder}/weights", f"output.cache_dir={folder}/cache"]
        for script, more in (("train.py", []), ("test.py", ["--output", f"{folder}/result.txt"])):
            done = subprocess.run(
                [sys.executable, script, "--config", SAMPLE, *more, *settings], cwd=ROOT,
                capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
        results.append((folder / "result.txt").read_bytes())
    assert results[0] == results[1]
    assert len(set(results[0].split(b"\n"))) > 1000


def test_the_kernels_change_no_label(root, tmp_path):
    """Our own kernels, which are there for speed, against Jittor's own operations."""
    names = sorted(os.listdir(os.path.join(root, "TestSetB")))[::12]
    (tmp_path / "some").mkdir()
    for name in names:
        shutil.copy(os.path.join(root, "TestSetB", name), tmp_path / "some")
    lines, plain = same_labels.results(["--config", SAMPLE, f"data.root={root}", "mta.views=4",
                                        f"data.test_dir={tmp_path / 'some'}", "data.labels=null"])
    assert lines == plain and len(lines) == len(names) > 90
