"""Own pictures: class folders and CSVs as people have them, and what is refused."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

import prompts
from data.challenge import ClassName
from data.pictures import labels_of_pictures, load_pictures, read_names, read_pictures
from models.errors import UserError
from prompts import PromptLibrary


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
    (lambda write: write("notes.txt"), "neither a folder of images nor a .csv"),
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
