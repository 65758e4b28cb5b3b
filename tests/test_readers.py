"""Every reader on what Hypothesis makes up: it is read right, or refused in one line."""

import json
import math
import os
import string
import warnings

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from configs import format_config, load_config
from data.folders import natural_key
from data.image_paths import list_images, training_folders
from data.lists import ClassName, Sample, read_classes, read_labels, read_samples
from data.views import decode
from models.jclip.formats import read_weights
from prompts import PromptLibrary
from runs.submission import check_entry
from system.errors import UserError
from system.files import read_pickle, write_pickle
from system.untrusted import leaves_folder, odd_character, shown
from tests.corpus import checkpoints, images

pytestmark = pytest.mark.slow

# The same examples in every run; no file of earlier failures.
MANY = settings(derandomize=True, deadline=None, database=None, max_examples=150)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder, in which each example writes its file anew."""
    return tmp_path_factory.mktemp("readers")


def attempt(read, path, content=None):
    """read(path), or None where it is refused; any other error is one of ours.

    Args:
        content: bytes or text to write there first.
    """
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes)
                         else content.encode("utf-8", "surrogatepass"))
    try:
        return read(str(path))
    except UserError as error:
        message = str(error)
        assert path.name in message and len(message) < 2000
        assert len(message.splitlines()) == 1
        return None


# Lists

# Names of files and classes: any characters but those that no line can hold.
# Once a kernel of Jittor's is loaded, the processor takes subnormal numbers for 0, which
# Hypothesis would complain of.
FLOATS, SHARES = st.floats(allow_subnormal=False), st.floats(0, 1, allow_subnormal=False)
NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="\ufeff/"),
                min_size=1, max_size=20).map(str.strip).filter(bool)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", " \n"])
GAPS = st.sampled_from([" ", "  ", "\t"])
# Lines that are nearly right, and texts that are not.
LABELS = st.one_of(st.integers(-2, 12).map(str), st.text(string.digits, max_size=12), st.text())
LINES = st.lists(st.one_of(st.tuples(st.one_of(NAMES, st.sampled_from(["A/a.jpg", "../x", "/x"])),
                                     GAPS, LABELS).map("".join), st.text()), max_size=6)
LISTS = st.one_of(st.binary(max_size=200), st.text(), st.tuples(LINES, LINE_ENDS).map(
    lambda parts: parts[1].join(parts[0])))


@MANY
@given(content=LISTS)
def test_lists_of_any_content(place, content):
    path = place / "list.txt"
    classes = attempt(read_classes, path, content) or []
    assert len(set(classes)) == len(classes)
    for domain, name in classes:
        assert name.strip() and odd_character(domain + name) is None
    for label in (attempt(lambda path: read_labels(path, 9), path) or {}).values():
        assert 0 <= label < 9
    assert not attempt(lambda path: read_samples(path, [str(place / "nowhere")], 9), path)
    assert attempt(lambda path: check_entry(path, ["a.jpg"], 9) or True, path) in (None, True)


@MANY
@given(st.data())
def test_classes_that_are_written_are_read(place, data):
    names = data.draw(st.lists(NAMES.filter(lambda name: "_" not in name), min_size=1, max_size=8,
                               unique_by=str.lower))
    domain = data.draw(NAMES.filter(lambda name: "_" not in name))
    lines = [f"{domain}_{name}{data.draw(GAPS)}{label}" for label, name in enumerate(names)]
    text = data.draw(LINE_ENDS).join(data.draw(st.permutations(lines)))
    (place / "classes.txt").write_bytes(data.draw(st.sampled_from(["", "\ufeff"])).encode()
                                        + text.encode())
    assert read_classes(str(place / "classes.txt")) == [ClassName(domain, n) for n in names]


@MANY
@given(labels=st.dictionaries(NAMES, st.integers(0, 8), min_size=1), gap=GAPS, end=LINE_ENDS)
def test_labels_that_are_written_are_read(place, labels, gap, end):
    (place / "labels.txt").write_bytes(end.join(
        f"{name}{gap}{label}" for name, label in labels.items()).encode())
    labels = {name: label for name, label in labels.items() if name != ".."}
    assert not labels or attempt(
        lambda path: read_labels(path, 9), place / "labels.txt") in (labels, None)


@MANY
@given(name=st.one_of(st.text(max_size=30), st.lists(st.sampled_from(
    ["..", "A", "a.jpg", "TrainSet", "Dataset", ""]), max_size=7).map("/".join)))
def test_no_path_leaves_its_folder(place, name):
    """What is found lies in the folders, however it is written."""
    inside = place / "in" / "Dataset"
    for folder in (place / "in", inside, inside / "TrainSet" / "A", place / "A"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.jpg").touch()
    folders = training_folders(str(inside))[:-1]
    for each in attempt(lambda path: read_samples(path, folders, 9), place / "train.txt",
                        f"{name} 3\n") or []:
        assert each == Sample(each.path, 3) and os.path.isfile(each.path)
        assert os.path.commonpath([inside, os.path.realpath(each.path)]) == str(inside)
        assert os.path.isabs(name) or not leaves_folder(name)


@MANY
@given(st.data())
def test_entries_that_are_written_are_valid(place, data):
    """As test.py writes them, of names as `list_images` lets pass."""
    names = data.draw(st.lists(st.text(st.characters(
        blacklist_categories=("Cs",), blacklist_characters="\n\r\0/"), min_size=1), min_size=1,
        max_size=5, unique=True))
    rows = [data.draw(st.permutations(range(9)))[:5] for _ in names]
    lines = [" ".join([name, *map(str, row)]) + "\n" for name, row in zip(names, rows)]
    (place / "result.txt").write_bytes("".join(lines).encode())
    check_entry(str(place / "result.txt"), names, 9)
    (place / "result.txt").write_bytes("".join(lines[1:]).encode())
    with pytest.raises(UserError, match=f"no line for 1 of {len(names)}"):
        check_entry(str(place / "result.txt"), names, 9)


def fits_a_line(name):
    try:
        return name.decode().replace("\r", "\n").count("\n") == 0
    except UnicodeDecodeError:
        return False


@MANY
@given(names=st.sets(st.binary(min_size=1, max_size=9).filter(
    lambda name: not set(name) & set(b"\0/") and name[:1] != b"."), min_size=1, max_size=3))
def test_image_names_are_listed_once_or_refused(tmp_path_factory, names):
    """Whatever bytes the names are, the disk's owner chose them."""
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        open(os.fsencode(folder) + b"/" + name + b".jpg", "w").close()
    paths = attempt(list_images, folder)
    assert (paths is not None) == all(fits_a_line(name) for name in names)
    assert paths is None or {os.fsencode(os.path.basename(path)[:-4]) for path in paths} == names


@MANY
@given(names=st.lists(st.text(alphabet="01a9_é²", max_size=6), unique=True))
def test_natural_order_is_total(names):
    ordered = sorted(names, key=natural_key)
    assert sorted(names[::-1], key=natural_key) == ordered


# Settings

SECTIONS = {name: list(keys) if isinstance(keys, dict) else []
            for name, keys in load_config().to_dict().items()}
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text(max_size=9),
              st.dates(), st.binary(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6)
KEYS = st.sampled_from(sorted({key for keys in SECTIONS.values() for key in keys}))
CHANGES = st.dictionaries(st.sampled_from(sorted(SECTIONS)), st.one_of(
    VALUES, st.dictionaries(st.one_of(KEYS, st.text(max_size=5)), VALUES, max_size=2)), max_size=2)


def holds_what_it_may(config):
    for name, value in config.to_dict().items():
        for each in value.values() if isinstance(value, dict) else [value]:
            for item in each if isinstance(each, list) else [each]:
                assert item is None or isinstance(item, (bool, int, float, str))
                assert not isinstance(item, float) or math.isfinite(item), name


@MANY
@given(content=st.one_of(st.binary(max_size=99), st.text(), CHANGES.map(yaml.safe_dump),
                         st.text(alphabet="lora:{}[]&*!'\"rank -\n\t%2.<", max_size=40)))
def test_configs_of_any_content(place, content):
    config = attempt(load_config, place / "config.yaml", content)
    if config is not None:
        holds_what_it_may(config)
        again = attempt(load_config, place / "config.yaml", format_config(config))
        assert again.to_dict() == config.to_dict()


@MANY
@given(section=st.sampled_from(sorted(SECTIONS)), key=st.one_of(KEYS, st.text(max_size=5)),
       value=st.one_of(st.text(), VALUES.map(yaml.safe_dump)))
def test_overrides_of_any_content(section, key, value):
    try:
        holds_what_it_may(load_config(None, [f"{section}.{key}={value}"]))
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 500


JSON = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text()),
                    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
                        st.text(max_size=5), inner, max_size=3)), max_leaves=6)
TEXTS = st.text(alphabet="{}ab \n\ud800é", max_size=6)
ENTRIES = st.dictionaries(st.sampled_from(["name", "group", "descriptions"]),
                          st.one_of(TEXTS, st.lists(TEXTS, max_size=2), JSON), max_size=3)
LIKE_PROMPTS = st.fixed_dictionaries({
    "domain": st.one_of(TEXTS, st.just("Pet")),
    "templates": st.lists(st.one_of(TEXTS, st.just("a {}.")), max_size=3),
    "classes": st.dictionaries(TEXTS, ENTRIES, max_size=3)})


@MANY
@given(content=st.one_of(st.binary(max_size=99), st.text(), JSON.map(json.dumps),
                         LIKE_PROMPTS.map(json.dumps)))
def test_prompts_of_any_content(place, content):
    folder = place / "prompts"
    folder.mkdir(exist_ok=True)
    (folder / "general.json").write_text(
        '{"domain": "general", "templates": ["a photo of a {}."], "classes": {}}')

    def read(path):
        return PromptLibrary(os.path.dirname(path))

    library = attempt(read, folder / "pets.json", content)
    if library is not None:
        for name in [*json.loads((folder / "pets.json").read_bytes())["classes"], "other"]:
            texts = library.prompts(ClassName("Pet", name), n_general=1)
            assert texts and all(text.strip() for text in texts)
            "".join(texts).encode()  # the tokenizer's first step


# Images


@MANY
@given(whole=st.sampled_from([images.JPEG, images.PNG, images.GIF, images.BMP, images.WEBP,
                              images.TIFF]),
       changes=st.lists(st.tuples(SHARES, st.integers(0, 255)), max_size=4),
       end=st.floats(0.05, 2))
def test_images_with_any_bytes_changed(place, whole, changes, end):
    content = bytearray(whole)
    for where, value in changes:
        content[min(int(where * len(content)), len(content) - 1)] = value
    path = place / "x.jpg"
    path.write_bytes(content[:int(end * len(content))])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")
        image = decode(str(path))
    assert all(str(path) in str(warning.message) for warning in caught)
    if image is None:
        assert caught
    else:
        assert image.mode == "RGB" and np.asarray(image).shape[2] == 3


@MANY
@given(pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_pictures_that_are_written_are_read(place, pixels):
    Image.fromarray(pixels).save(place / "x.png")
    np.testing.assert_array_equal(np.asarray(decode(str(place / "x.png"))), pixels)


# Pickles

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(),
              st.floats(allow_nan=False, allow_subnormal=False), st.text(), st.binary(),
              arrays.arrays(st.sampled_from(["f4", "f8", "i4", "u1", "?"]),
                            arrays.array_shapes(min_dims=0, min_side=0),
                            elements={"allow_nan": False, "allow_subnormal": False})),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner),
                            st.dictionaries(st.text(), inner, max_size=3)), max_leaves=6)


@MANY
@given(value=PLAIN)
def test_pickles_that_are_written_are_read(place, value):
    write_pickle(str(place / "x.pkl"), value)
    np.testing.assert_equal(read_pickle(str(place / "x.pkl")), value)


@MANY
@given(part=st.sampled_from(sorted(checkpoints.content())), value=PLAIN)
def test_checkpoints_with_any_part(place, part, value):
    """A part of another kind is refused, whichever it is; without settings the defaults count."""
    path = place / "head.pkl"
    write_pickle(str(path), {**checkpoints.content(), part: value})
    empty = isinstance(value, dict) and not value
    assert attempt(checkpoints.read, path) is None or part in ("lora", "config") and empty


@MANY
@given(changes=st.lists(st.tuples(SHARES, st.integers(0, 255)), min_size=1, max_size=4),
       with_checksum=st.booleans())
def test_checkpoints_with_any_bytes_changed(place, changes, with_checksum):
    path = place / "head.pkl"
    write_pickle(str(path), checkpoints.content())
    content = bytearray(path.read_bytes())
    if not with_checksum:
        del content[-28:]
    for where, value in changes:
        content[min(int(where * len(content)), len(content) - 1)] = value
    attempt(checkpoints.read, path, bytes(content))
    attempt(read_weights, path)


@MANY
@given(config=st.one_of(JSON, st.fixed_dictionaries({
    "vision_config": st.dictionaries(st.sampled_from(["hidden_act", "num_attention_heads"]), JSON),
    "text_config": st.dictionaries(st.sampled_from(["hidden_act", "num_attention_heads"]), JSON)})),
    name=st.sampled_from(["config.json", "open_clip_config.json"]))
def test_weights_beside_any_config(tmp_path_factory, config, name):
    folder = tmp_path_factory.mktemp("weights")
    write_pickle(str(folder / "clip.pkl"), {"visual.proj": np.ones((2, 2), np.float32)})
    (folder / name).write_text(json.dumps(config))
    try:
        weights = read_weights(str(folder / "clip.pkl"))
    except UserError as error:
        assert name in str(error) and len(str(error).splitlines()) == 1
    else:
        assert weights.heads is None or min(weights.heads) > 0


# What the readers look with


@MANY
@given(value=st.one_of(PLAIN, VALUES))
def test_what_is_shown_is_short(value):
    assert len(shown(value)) < 1000 and len(shown(value).splitlines()) <= 1


@MANY
@given(text=st.text())
def test_odd_characters_are_found(text):
    assert (odd_character(text) is None) == all(
        ord(c) >= 32 and not 127 <= ord(c) < 160 and not 0xd800 <= ord(c) < 0xe000
        and c != "\ufeff" for c in text)
