"""Own pictures: class folders and CSVs as people have them, and what is refused."""

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import prompts
from configs import load_config
from data import formats
from data.lists import ClassName
from data.names import warn_of_names
from data.pictures import labels_of_pictures, load_pictures, read_names, read_pictures
from data.sources import images_to_classify, load_data
from prompts import PromptLibrary
from system.errors import UserError


@pytest.fixture
def write(tmp_path):
    """write(name, content) -> path of a file in `tmp_path`; its folders are made."""
    def write_file(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8"))
        return str(path)
    return write_file


@pytest.fixture(scope="module")
def library():
    return PromptLibrary(os.path.dirname(prompts.__file__))


def settings(images, new_classes=None, shots=4, val_shots=2, shots_file=None):
    return SimpleNamespace(images=str(images), new_classes=new_classes, shots=shots,
                           val_shots=val_shots, shots_file=shots_file)


@pytest.fixture
def pets(write, tmp_path):
    """A folder of 9 cats, 5 polar bears and 4 rats."""
    for name, n in (("cat", 9), ("polar_bear", 5), ("rat", 4)):
        for i in range(n):
            write(f"pets/{name}/{i}.jpg")
    return tmp_path / "pets"


def test_classes_are_the_folders_and_images_come_in_natural_order(write, tmp_path):
    for file in ("b_c/10.jpg", "b_c/9.PNG", "a/x/1.jpg", "a/2.webp", "a/notes.txt", ".git/1.jpg",
                 "a/.hidden.jpg", "__MACOSX/a/1.jpg", "loose.jpg"):
        write(f"mine/{file}")
    with pytest.warns(UserWarning, match="1 names are left out, such as 'a/notes.txt'"):
        found = read_pictures(str(tmp_path / "mine"))
    assert [p[1:] for p in found] == [
        ("a/2.webp", "a"), ("a/x/1.jpg", "a"), ("b_c/9.PNG", "b c"), ("b_c/10.jpg", "b c"),
        ("loose.jpg", "")]
    assert all(os.path.isfile(p.path) for p in found)


@pytest.mark.parametrize("name", [b"a\xff.jpg", b"a\nb.jpg"])
def test_a_name_that_no_result_can_hold_is_refused(pets, name):
    with open(os.path.join(os.fsencode(pets), b"cat", name), "wb"):
        pass
    with pytest.raises(UserError, match="rename the image"):
        read_pictures(str(pets))


def test_linked_class_folders_are_read(pets, tmp_path):
    (tmp_path / "links").mkdir()
    os.symlink(pets / "cat", tmp_path / "links" / "tom_cat")
    assert {p.name for p in read_pictures(str(tmp_path / "links"))} == {"tom cat"}


@pytest.mark.parametrize("content", [
    "path,label\na.jpg,big_cat\nsub/b.jpg,dog\n",
    "\ufeffpath,label\r\na.jpg,big_cat\r\n\r\nsub/b.jpg,dog\r\n",
    "label, path, note\nbig cat, a.jpg, \"a, b\"\ndog, sub/b.jpg,\n",
])
def test_a_csv_is_read_however_it_is_written(write, tmp_path, content):
    write("a.jpg"), write("sub/b.jpg")
    pictures = read_pictures(write("list.csv", content))
    assert [p[1:] for p in pictures] == [("a.jpg", "big cat"), ("sub/b.jpg", "dog")]
    assert [p.path for p in pictures] == [str(tmp_path / "a.jpg"), str(tmp_path / "sub/b.jpg")]


EXCELS = "path,label\na.jpg,big_cat\nsub/b.jpg,dog\n"


@pytest.mark.parametrize("content", [
    "path,label\n,\na.jpg,big_cat\n,,\n\n , \nsub/b.jpg,dog\n,\n,\n",
    "path,label,,\na.jpg,big_cat,,\nsub/b.jpg,dog,,\n,,,\n",
    "path , label\na.jpg , big_cat\nsub/b.jpg , dog \n",
    "Path,LABEL\na.jpg,big_cat\nsub/b.jpg,dog\n", "\n\n" + EXCELS, EXCELS.replace(",", ";"),
    EXCELS.replace(",", "\t"), EXCELS.replace("\n", "\r"), "sep=;\n" + EXCELS.replace(",", ";"),
    'sep=,\r\n"path","label"\r\n"a.jpg","big cat"\r\n"sub/b.jpg","dog"\r\n',
    "path;label;note\na.jpg;big cat;\"x; y\"\nsub/b.jpg;dog;1,5\n",
    "path,label\n./a.jpg,big cat\nsub\\b.jpg,dog\n", "path,label\n.\\a.jpg,big cat\nsub\\b.jpg,dog",
    EXCELS.encode("utf-16"), "\ufeff".encode("utf-16-be") + EXCELS.encode("utf-16-be"),
    EXCELS.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
])
def test_a_csv_is_read_as_excel_writes_it(tmp_path, content):
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    pictures = read_pictures(str(path))
    assert [p.name for p in pictures] == ["big cat", "dog"]
    assert [p.path for p in pictures] == [str(tmp_path / "a.jpg"), str(tmp_path / "sub/b.jpg")]


def test_a_csv_may_name_what_lies_beside_its_folder(write, tmp_path):
    write("x/1.jpg"), write("x/2.jpg")
    path = write("lists/mine.csv", "path,label\n../x/1.jpg,cat\n..\\x\\2.jpg,dog\n")
    pictures = read_pictures(path)
    assert [p.path for p in pictures] == [str(tmp_path / "x/1.jpg"), str(tmp_path / "x/2.jpg")]
    assert [p.file for p in pictures] == ["../x/1.jpg", "..\\x\\2.jpg"]


def test_a_file_that_is_really_called_so_comes_first(write, tmp_path):
    write("sub/b.jpg"), write("sub\\b.jpg"), write("c.jpg "), write("c.jpg")
    pictures = read_pictures(write("list.csv", 'path,label\nsub\\b.jpg,dog\n"c.jpg ",cat\n'))
    assert [p.path for p in pictures] == [str(tmp_path / "sub\\b.jpg"), str(tmp_path / "c.jpg ")]


def test_a_csv_in_another_encoding_names_the_cure(write, tmp_path):
    write("a.jpg")
    (tmp_path / "list.csv").write_bytes("path,label\na.jpg,大熊猫\n".encode("gbk"))
    with pytest.raises(UserError, match="list.csv is not UTF-8 .*'CSV UTF-8'"):
        read_pictures(str(tmp_path / "list.csv"))


# Folders that hold no class


@pytest.mark.parametrize("folders, part, named", [
    (("train", "val"), "train", "train"), (("train", "val"), "test", "val"),
    (("train", "test"), "test", "test"), (("Train", "Valid", "Test"), "train", "Train"),
    (("training", "validation"), "train", "training"), (("TRAIN",), "train", "TRAIN"),
    (("TrainSet", "ValidSet"), "test", "ValidSet"), (("test_images", "train_images"), "train",
                                                     "train_images"),
    (("train2017", "val2017"), "train", "train2017"), (("dev", "eval"), "train", "dev")])
def test_folders_of_parts_are_no_classes(write, tmp_path, folders, part, named):
    for folder in folders:
        write(f"mine/{folder}/cat/1.jpg"), write(f"mine/{folder}/dog/1.jpg")
    write("mine/annotations/notes/.hidden.jpg")
    with pytest.raises(UserError, match="are no classes") as error:
        read_pictures(str(tmp_path / "mine"), part)
    assert str(error.value).endswith(f"--images {tmp_path / 'mine' / named}")


def test_parts_of_which_one_has_no_classes_are_refused(write, tmp_path):
    write("mine/train/cat/1.jpg"), write("mine/test/1.jpg")
    for part in ("train", "test"):
        with pytest.raises(UserError, match=f"--images .*mine/{part}$"):
            read_pictures(str(tmp_path / "mine"), part)


@pytest.mark.parametrize("files", [
    ("train/1.jpg", "car/2.jpg"), ("train/1.jpg", "test/2.jpg"), ("train/old/1.jpg", "car/2.jpg"),
    ("train/old/1.jpg", "train/2.jpg", "val/3.jpg"), ("trains/a/1.jpg", "tests/b/1.jpg")])
def test_classes_that_are_called_so_are_read(write, tmp_path, files):
    for file in files:
        write(f"mine/{file}")
    assert {p.name for p in read_pictures(str(tmp_path / "mine"))} == {
        file.split("/")[0] for file in files}


def test_pictures_in_a_folder_of_the_same_name_are_read_and_said(pets, tmp_path):
    (tmp_path / "x").mkdir()
    os.rename(pets, tmp_path / "x" / "pets")
    os.rename(tmp_path / "x", pets)
    with pytest.warns(UserWarning, match="what lies in .*pets/pets is used"):
        pictures = read_pictures(str(pets))
    assert {p.name for p in pictures} == {"cat", "polar bear", "rat"}
    assert pictures[0].file == "cat/0.jpg" and os.path.isfile(pictures[0].path)


def test_folders_without_images_are_named(pets, write, library):
    (pets / "dodo").mkdir()
    write("pets/auk/notes.txt"), write("pets/emu/old/.1.jpg"), write("pets/.git/1.txt")
    (pets / "kiwi" / "young").mkdir(parents=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        challenge = load_pictures(settings(pets), 1, library)
    said = [str(w.message) for w in caught if "hold no image" in str(w.message)]
    assert said == [f"{pets}: 4 folders hold no image and are no classes: 'auk', 'dodo', 'emu' … "
                    "(4)"]
    assert [c.name for c in challenge.classes] == ["cat", "polar bear", "rat"]


@pytest.fixture
def without_heif(monkeypatch):
    """As where no package reads HEIC."""
    monkeypatch.setattr(formats, "readable_formats", lambda: ("JPEG",))


def test_heic_without_its_package_is_named_and_not_trained_on(pets, write, library, without_heif):
    before = load_pictures(settings(pets), 1, library)
    for i in range(3):
        write(f"pets/yak/{i}.HEIC")
    write("pets/cat/99.heif"), write("pets/rat/1.avif")
    with pytest.warns(UserWarning) as caught:
        challenge = load_pictures(settings(pets), 1, library)
    assert challenge.train == before.train and challenge.classes == before.classes
    (said,) = [str(w.message) for w in caught]
    assert "5 pictures are left out, so that 'yak' are no classes, such as cat/99.heif" in said
    assert "convert to JPEG, or pip install pillow-heif" in said


def test_heic_alone_is_refused_with_the_cure(write, tmp_path, library, without_heif):
    write("mine/cat/1.heic"), write("mine/dog/1.heic")
    with pytest.raises(UserError, match="no picture can be read .*pip install pillow-heif"):
        load_pictures(settings(tmp_path / "mine"), 1, library)


def test_heic_with_its_package_is_an_image_like_others(write, tmp_path, library, monkeypatch):
    monkeypatch.setattr(formats, "readable_formats", lambda: ("JPEG", "HEIF"))
    write("mine/cat/1.heic"), write("mine/dog/1.HEIF")
    challenge = load_pictures(settings(tmp_path / "mine"), 1, library)
    assert [c.name for c in challenge.classes] == ["cat", "dog"]


# Names


@pytest.mark.parametrize("folders, names", [
    (("001.Black_footed_Albatross", "002.Laysan_Albatross"),
     ["Black footed Albatross", "Laysan Albatross"]),
    (("1. cat", "10.dog", "rat"), ["cat", "rat", "dog"]),
    (("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), ["Chihuahua", "Japanese spaniel"])])
def test_numbers_that_sort_the_names_are_left_out_and_said(write, tmp_path, library, folders,
                                                           names):
    for folder in folders:
        write(f"mine/{folder}/1.jpg")
    with pytest.warns(UserWarning, match="taken without the number before them: '") as caught:
        challenge = load_pictures(settings(tmp_path / "mine"), 1, library)
    assert len(caught) == 1 and sorted(c.name for c in challenge.classes) == sorted(names)
    pictures = read_pictures(str(tmp_path / "mine"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = labels_of_pictures(pictures, challenge.classes)
    assert labels.tolist() == [0, 1, 2][:len(names)]


@pytest.mark.parametrize("folders", [("1.cat", "2.cat"), ("3.5 t", "7.5 t"), ("4.", "5."),
                                     ("No.1 cat", "No.2 cat")])
def test_numbers_that_tell_the_names_apart_stay(write, tmp_path, library, folders):
    for folder in folders:
        write(f"mine/{folder}/1.jpg")
    challenge = load_pictures(settings(tmp_path / "mine"), 1, library)
    assert [c.name for c in challenge.classes] == list(folders)


def test_numbers_of_new_classes_are_left_out_too(write):
    with pytest.warns(UserWarning, match="new.txt: 2 class names"):
        assert read_names(write("new.txt", "003.red_fox\n004.tiger\n")) == ["red fox", "tiger"]


@pytest.mark.parametrize("names, words", [
    (["0", "12", "cat"], ["2 class names are numbers, such as '0'"]),
    (["class 0", "class 1"], ["2 class names are numbers, such as 'class 0'"]),
    (["n02084071", "n02084071x", "dog"], ["1 class names are WordNet ids, such as 'n02084071'"]),
    (["大熊猫", "панда", "cat"], ["2 class names are without a Latin letter, such as '大熊猫'"]),
    (["0 cat", "1 dog"], ["all class names begin with a number, such as '0 cat'"]),
    (["0", "n02084071", "大熊猫"], ["numbers", "WordNet", "Latin"]),
    (["707-320", "A340", "DC-10", "crème", "7 up", "C-130", "n95 mask", "3 series"], []),
    (["3 series", "5 series", "i3"], [])])
def test_names_that_tell_clip_nothing_are_named(names, words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_names(names, "mine")
    said = [str(w.message) for w in caught]
    assert len(said) == len(words)
    for text, word in zip(said, words):
        assert word in text and text.startswith("mine: ") and "JSON file of prompts" in text


def test_a_name_that_the_prompts_give_is_no_matter(write, tmp_path):
    write("prompts/general.json", '{"domain": "general", "templates": ["{}."], "classes": {}}')
    write("prompts/a.json", '{"domain": "A", "templates": [], "classes": '
          '{"大熊猫": {"name": "panda"}}}')
    write("mine/大熊猫/1.jpg"), write("mine/cat/1.jpg")
    data = load_config(None, [f"data.images={tmp_path / 'mine'}"]).data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(data, 1, PromptLibrary(str(tmp_path / "prompts")))
    (tmp_path / "prompts" / "a.json").unlink()
    with pytest.warns(UserWarning, match="without a Latin letter"):
        load_data(data, 1, PromptLibrary(str(tmp_path / "prompts")))


def test_a_label_file_may_have_windows_separators(write, tmp_path):
    """The bare name counts in one folder, the path below it among own pictures."""
    for name in ("Dataset/TestSetB/a.jpg", "Dataset/TestSetB/b\\c.jpg", "mine/cat/1.jpg",
                 "mine/dog/1.jpg", "mine/dog\\2.jpg"):
        write(name)
    classes = [ClassName("", "cat"), ClassName("", "dog")]
    flat = load_config(None, [f"data.root={tmp_path / 'Dataset'}"]).data
    labels = write("labels.txt", "TestSetB\\a.jpg 1\nb\\c.jpg 0\n")
    assert images_to_classify(flat, classes, np.arange(2), labels).labels.tolist() == [1, 0]
    labels = write("labels.txt", "C:\\Dataset\\TestSetB\\a.jpg 1\n")
    assert images_to_classify(flat, classes, np.arange(2), labels).labels.tolist() == [1, -1]
    own = load_config(None, [f"data.images={tmp_path / 'mine'}"]).data
    labels = write("labels.txt", "dog\\1.jpg 0\ncat/1.jpg 1\ndog\\2.jpg 1\n")
    images = images_to_classify(own, classes, np.arange(2), labels)
    assert dict(zip(images.names, images.labels.tolist())) == {
        "cat/1.jpg": 1, "dog/1.jpg": 0, "dog\\2.jpg": 1}


def test_a_csv_may_name_images_anywhere(write, tmp_path):
    image = write("far/away.jpg")
    assert read_pictures(write("list/mine.csv", f"path\n{image}\n"))[0].path == image


def test_a_csv_without_labels_leaves_the_class_open(write):
    write("a.jpg")
    assert read_pictures(write("list.csv", "path\na.jpg\n"))[0].name == ""


def test_shots_and_validation_images_are_apart(pets, library):
    challenge = load_pictures(settings(pets), 1, library)
    assert [c.name for c in challenge.classes] == ["cat", "polar bear", "rat"]
    assert challenge.base.tolist() == [0, 1, 2] and challenge.new.tolist() == []
    counts = [np.bincount([s.label for s in part], minlength=3).tolist() for part in (
        challenge.train, challenge.held_back, challenge.validation)]
    assert counts == [[4, 4, 4], [5, 1, 0], [2, 1, 0]]
    assert not set(challenge.train) & set(challenge.validation)
    assert set(challenge.validation) <= set(challenge.held_back)
    assert load_pictures(settings(pets), 1, library) .train == challenge.train
    assert load_pictures(settings(pets), 2, library).train != challenge.train


def test_a_csv_of_the_same_images_gives_the_same_shots(pets, library, write):
    rows = [f"pets/{p.file},{p.name}" for p in read_pictures(str(pets))]
    path = write("pets.csv", "\n".join(["path,label", *rows]))
    by_folder, by_csv = (load_pictures(settings(p), 1, library) for p in (pets, path))
    assert by_csv.train == by_folder.train and by_csv.validation == by_folder.validation


def test_new_classes_come_after_the_folders(pets, library, write):
    names = write("new.txt", "\ufeffred_fox\r\n\r\n tiger \r\n")
    challenge = load_pictures(settings(pets, names), 1, library)
    assert [c.name for c in challenge.classes][3:] == ["red fox", "tiger"]
    assert challenge.new.tolist() == [3, 4]


def test_labels_are_those_of_the_trained_classes(pets, tmp_path, write):
    write("pets/dodo/1.jpg"), write("pets/loose.jpg")
    classes = [ClassName("", "Rat"), ClassName("Animal", "polar bear"), ClassName("", "cat")]
    pictures = read_pictures(str(pets))
    labels = labels_of_pictures(pictures, classes)
    assert {(p.name, label) for p, label in zip(pictures, labels)} == {
        ("cat", 2), ("polar bear", 1), ("rat", 0), ("dodo", -1), ("", -1)}


@pytest.mark.parametrize("names, domains", [
    (["Shiba_Dog", "German shepherd", "sofa cushion"], ["Thu-dog", "Thu-dog", ""]),
    (["apple_pie", "baklava", "beignets"], ["Food-101", "Food-101", "Food-101"]),
])
def test_classes_that_a_prompt_file_lists_are_of_its_domain(library, names, domains):
    assert [c.domain for c in library.class_names(names)] == domains


@pytest.mark.parametrize("make, message", [
    (lambda write: os.path.dirname(write("one/cat/1.jpg")), "has no class"),
    (lambda write: os.path.dirname(os.path.dirname(write("one/cat/1.jpg"))), "one class 'cat'"),
    (lambda write: os.path.dirname(write("empty/notes.txt")), "no images in"),
    (lambda write: write("notes.txt"), "neither a folder of images nor a .csv.*'CSV UTF-8'"),
    (lambda write: "/nowhere", "/nowhere is neither"),
    (lambda write: write("a.csv", "1.jpg,cat\n"), "line 1: the columns must be named"),
    (lambda write: write("a.csv", ""), "line 1: the columns must be named"),
    (lambda write: write("a.csv", "path,label\n"), "no images in"),
    (lambda write: write("a.csv", "path,label\nnone.jpg,cat\n"), "line 2: no image 'none.jpg'"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg\n"), "line 2: not as many columns"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg,a,b\n"), "line 2: not as many columns"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg,\n"), "x/1.jpg of .* has no class"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg,Cat\nx/2.jpg,cat\n"), "'cat' is there"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg,a\n./x/1.jpg,b\n"),
     "line 3: './x/1.jpg' is listed twice"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg,a\0\n"), "line 2"),
    (lambda write: write("a.csv", f"path,label\nx/1.jpg,{'a' * 200_000}\n"), "field limit"),
    (lambda write: write("a.csv", "path,label\nx/1.jpg,a\x7f\n"), "line 2: .* character"),
])
def test_what_is_wrong_with_the_pictures_is_named(write, library, make, message):
    write("x/1.jpg"), write("x/2.jpg")
    with pytest.raises(UserError, match=message):
        load_pictures(settings(make(write)), 1, library)


def test_shots_of_own_pictures_cannot_be_a_file(pets, library):
    with pytest.raises(UserError, match="data.shots_file is shots.txt"):
        load_pictures(settings(pets, shots_file="shots.txt"), 1, library)


@pytest.mark.parametrize("content, message", [
    ("fox\nCat\n", "'Cat' is there already, as 'cat'"), ("fox\nfox\n", "'fox' is there"),
    (" \n", "is empty")])
def test_what_is_wrong_with_the_new_classes_is_named(pets, library, write, content, message):
    names = write("new.txt", content)
    with pytest.raises(UserError, match=message) as error:
        load_pictures(settings(pets, names), 1, library)
    assert names in str(error.value)
    with pytest.raises(UserError, match="/nowhere"):
        read_names("/nowhere")
