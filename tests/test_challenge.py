"""The challenge's lists and folders, as people write and unpack them."""

import collections
import os
import pickle
import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import prompts
from configs import load_config
from data.challenge import choose_shots, few_shot, load_challenge
from data.folders import data_path, named_alike, natural_key
from data.image_paths import list_images, training_folders
from data.lists import ClassName, Sample, read_classes, read_labels, read_samples
from data.lost import in_place_of_lost
from prompts import PromptLibrary
from system.errors import UserError

IMAGE = "Animal/polar bear/a (1).jpg"


@pytest.fixture
def write(tmp_path):
    """write(name, content) -> path of a file in `tmp_path`; its folders are made."""
    def write_file(name, content=b""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)
    return write_file


def numbered(counts):
    """Samples of made-up paths: counts[label] images of each label."""
    return [Sample(f"{label}/{i}.jpg", label)
            for label, n in enumerate(counts) for i in range(n)]


def told(work):
    """What `work()` returns, and its warnings' texts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    return result, [str(warning.message) for warning in caught]


# Class lists


@pytest.mark.parametrize("content", [
    b"Animal_polar_bear 0\nThu-dog_Shiba_Dog 1\nplain 2\n",
    b"Animal_polar_bear 0\r\nThu-dog_Shiba_Dog 1\r\nplain 2\r\n",
    b"\xef\xbb\xbfAnimal_polar_bear 0\nThu-dog_Shiba_Dog 1\nplain 2",
    b"\n  \nAnimal_polar_bear 0\n\n\tThu-dog_Shiba_Dog 1  \nplain   2\n\r\n",
    b"plain 2\nAnimal_polar_bear 0\nThu-dog_Shiba_Dog 1\n",
    b"Animal_polar bear 0\nThu-dog_Shiba Dog 01\nplain 2\n",
    b"\xef\xbb\xbf\r\nplain 2\r\nThu-dog_Shiba Dog 1\r\nAnimal_polar bear 0",
], ids=["plain", "CRLF", "BOM", "blanks", "unordered", "spaces in names", "all of it"])
def test_classes_are_read_however_they_are_written(write, content):
    assert read_classes(write("classes.txt", content)) == [
        ClassName("Animal", "polar bear"), ClassName("Thu-dog", "Shiba Dog"),
        ClassName("", "plain")]


def test_a_name_may_have_digits_and_letters_of_any_script(write):
    content = "Stanford-Cars_Audi_TTS_Coupe_2012 0\nFood_crème 3 brûlée 1\n"
    assert read_classes(write("classes.txt", content)) == [
        ClassName("Stanford-Cars", "Audi TTS Coupe 2012"), ClassName("Food", "crème 3 brûlée")]


@pytest.mark.parametrize("content, message", [
    ("A_cat 0\nA_dog 1\nA_cow 1\n", "line 3: label 1 is already 'dog'"),
    ("A_cat 0\nA_dog 2\n", "labels must be 0 to 1; 1 is missing"),
    ("A_cat 1\nA_dog 2\n", "labels must be 0 to 1; 0 is missing"),
    ("A_cat 0\nA_dog 1\nA_cat 2\n", "a class is listed twice"),
    ("A_polar_bear 0\nA_polar bear 1\n", "a class is listed twice"),
    ("A_cat 0\n\nA_dog\n", "line 3: 'A_dog' is not of the form 'Prefix_name label'"),
    ("A_cat 0\nA_polar bear\n", "line 2: 'A_polar bear' is not of the form"),
    ("A_cat 0\n1\n", "line 2: '1' is not of the form"),
    ("A_cat -1\n", "line 1: 'A_cat -1' is not of the form"),
    ("A_cat 0.0\n", "line 1: 'A_cat 0.0' is not of the form"),
    ("\n \r\n", "is empty"),
    ("", "is empty"),
])
def test_a_wrong_class_list_is_named_with_its_line(write, content, message):
    path = write("classes.txt", content)
    with pytest.raises(UserError) as error:
        read_classes(path)
    assert path in str(error.value) and message in str(error.value)


def test_the_same_name_in_two_domains_is_two_classes(write):
    assert len(read_classes(write("classes.txt", "Animal_crab 0\nFood_crab 1\n"))) == 2


def test_a_list_that_cannot_be_read_is_named(write, tmp_path):
    missing, folder = str(tmp_path / "none.txt"), str(tmp_path)
    latin = write("latin.txt", "Food_crème 0\n".encode("latin-1"))
    for path, message in ((missing, "No such file"), (folder, "directory"),
                          (latin, r"not UTF-8 text \(byte 7\)")):
        with pytest.raises(UserError, match=message) as error:
            read_classes(path)
        assert path in str(error.value)


# Training lists


@pytest.mark.parametrize("absolute_root", [True, False])
@pytest.mark.parametrize("on_disk", ["TrainSet/TrainSet", "TrainSet"])
@pytest.mark.parametrize("written", [
    "", "TrainSet/", "TrainSet/TrainSet/", "Dataset/TrainSet/", "Dataset/TrainSet/TrainSet/"])
def test_an_image_is_found_however_its_path_starts(write, tmp_path, monkeypatch, request, written,
                                                   on_disk, absolute_root):
    image = write(f"Dataset/{on_disk}/{IMAGE}")
    train_list = write("Dataset/train.txt", f"\ufeff{written}{IMAGE} 3\r\n\r\n")
    write("elsewhere/notes.txt")
    monkeypatch.chdir(tmp_path / "elsewhere" if absolute_root else tmp_path)
    root = str(tmp_path / "Dataset") if absolute_root else "Dataset"
    (sample,) = read_samples(train_list, training_folders(root), 4)
    assert sample.label == 3
    assert os.path.samefile(sample.path, image)


@pytest.mark.parametrize("on_disk", ["TrainSet/TrainSet", "TrainSet"])
@pytest.mark.parametrize("written", ["TrainSet/TrainSet", "TrainSet"])
def test_the_nested_folder_may_be_written_or_not(write, tmp_path, written, on_disk):
    image = write(f"Dataset/{on_disk}/{IMAGE}")
    train_list = write("train.txt", f"{written}/{IMAGE} 0\n")
    (sample,) = read_samples(train_list, training_folders(str(tmp_path / "Dataset")), 1)
    assert os.path.samefile(sample.path, image)


def test_an_absolute_path_and_one_from_the_working_folder_are_found(write, tmp_path, monkeypatch):
    image = write("elsewhere/x.jpg")
    monkeypatch.chdir(tmp_path)
    train_list = write("Dataset/train.txt", f"{image} 0\nelsewhere/x.jpg 1\n")
    samples = read_samples(train_list, training_folders("other/Dataset"), 2)
    assert [s.label for s in samples] == [0, 1]
    assert all(os.path.samefile(s.path, image) for s in samples)


def test_samples_keep_the_order_of_the_list(write, tmp_path):
    for name in "bca":
        write(f"{name}.jpg")
    train_list = write("train.txt", "b.jpg 2\nc.jpg 0\na.jpg 2\n")
    samples = read_samples(train_list, [str(tmp_path)], 3)
    assert [(os.path.basename(s.path), s.label) for s in samples] == [
        ("b.jpg", 2), ("c.jpg", 0), ("a.jpg", 2)]


def test_a_label_is_checked_at_the_border_of_the_class_list(write, tmp_path):
    for name in "xy":
        write(f"{name}.jpg")
    train_list = write("train.txt", "x.jpg 0\ny.jpg 4\n")
    assert [s.label for s in read_samples(train_list, [str(tmp_path)], 5)] == [0, 4]
    with pytest.raises(UserError, match=r"line 2: label 4 is outside .* \(0 to 3\)") as error:
        read_samples(train_list, [str(tmp_path)], 4)
    assert train_list in str(error.value)


def test_a_missing_image_is_named_with_its_line_and_the_folders(write, tmp_path):
    write("Dataset/TrainSet/a.jpg")
    (tmp_path / "Dataset/TrainSet/b.jpg").mkdir()  # a folder is no image
    train_list = write("Dataset/train.txt", "a.jpg 0\nb.jpg 0\n")
    root = str(tmp_path / "Dataset")
    with pytest.raises(UserError, match="line 2: no image 'b.jpg'") as error:
        read_samples(train_list, training_folders(root), 1)
    assert train_list in str(error.value) and root in str(error.value)


# Shots


def test_shots_are_that_many_of_each_class_and_the_rest_is_held_back():
    samples = numbered([9, 5, 7])
    random.Random(0).shuffle(samples)
    chosen, held_back = choose_shots(samples, 4, seed=1)
    assert [s.label for s in chosen] == [0] * 4 + [1] * 4 + [2] * 4
    assert [s.label for s in held_back] == [0] * 5 + [1] * 1 + [2] * 3
    assert sorted(chosen + held_back) == sorted(samples)
    for part in (chosen, held_back):  # by label, then in the list's order
        assert part == sorted(part, key=lambda s: (s.label, samples.index(s)))


def test_the_seed_alone_changes_the_shots():
    samples = numbered([20] * 5)
    assert choose_shots(samples, 4, seed=1) == choose_shots(samples, 4, seed=1)
    picks = {tuple(choose_shots(samples, 4, seed)[0]) for seed in range(10)}
    assert len(picks) == 10


def test_the_global_random_state_neither_matters_nor_moves():
    samples = numbered([20] * 5)
    np.random.seed(0)
    first, after = choose_shots(samples, 4, seed=1), np.random.random()
    np.random.seed(0)
    assert np.random.random() == after
    assert choose_shots(samples, 4, seed=1) == first


def test_a_class_gets_the_same_shots_whatever_the_others_are():
    before, alone, after = ([s for s in numbered([20, 20, 20]) if s.label == label]
                            for label in range(3))
    mixed = [sample for row in zip(after, alone, before) for sample in row]
    expected = choose_shots(alone, 4, seed=3)[0]
    for samples in (before + alone + after, before[:2] + alone, mixed):
        assert [s for s in choose_shots(samples, 4, seed=3)[0] if s.label == 1] == expected


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_class_with_no_more_images_than_shots_keeps_all(count):
    samples = numbered([6, count])
    chosen, held_back = choose_shots(samples, 4, seed=1)
    assert [s for s in chosen if s.label == 1] == [s for s in samples if s.label == 1]
    assert {s.label for s in held_back} == {0}


def test_every_image_can_be_chosen():
    samples = numbered([6])
    picked = {s for seed in range(60) for s in choose_shots(samples, 1, seed)[0]}
    assert picked == set(samples)


# The whole data set


@pytest.fixture
def dataset(write, tmp_path):
    """dataset(n_base, n_classes, n_images, …) -> settings of a data set on disk."""
    def make(n_base, n_classes, n_images=6, shots=4, shots_file=None):
        names = [f"c{label}/{i}.jpg" for label in range(n_base) for i in range(n_images)]
        for name in names:
            write(f"Dataset/TrainSet/TrainSet/Animal/{name}")
        write("Dataset/train.txt", "".join(f"TrainSet/Animal/{n} {n[1:n.index('/')]}\n"
                                           for n in names))
        write("Dataset/classes.txt", "".join(f"Animal_c{i} {i}\n" for i in range(n_classes)))
        return SimpleNamespace(root=str(tmp_path / "Dataset"), classes="classes.txt", domains=True,
                               train_list="train.txt", test_dir="TestSetB", shots=shots,
                               val_shots=2, shots_file=shots_file)
    return make


@pytest.mark.parametrize("n_base, n_classes", [(1, 2), (3, 5), (10, 11), (4, 4)])
def test_classes_with_training_images_are_base_and_the_others_new(dataset, n_base, n_classes):
    challenge = load_challenge(dataset(n_base, n_classes), seed=1)
    assert challenge.base.tolist() == list(range(n_base))
    assert challenge.new.tolist() == list(range(n_base, n_classes))
    assert n_base - 1 in challenge.base and n_base not in challenge.base
    assert challenge.base.dtype.kind == challenge.new.dtype.kind == "i"
    assert challenge.classes == [ClassName("Animal", f"c{i}") for i in range(n_classes)]


def test_shots_of_a_data_set_are_files_of_their_own_class(dataset):
    settings = dataset(3, 5, n_images=6, shots=4)
    challenge = load_challenge(settings, seed=1)
    assert [s.label for s in challenge.train] == [0] * 4 + [1] * 4 + [2] * 4
    assert [s.label for s in challenge.held_back] == [0] * 2 + [1] * 2 + [2] * 2
    for sample in challenge.train + challenge.held_back:
        assert os.path.isfile(sample.path) and f"/c{sample.label}/" in sample.path
    paths = [s.path for s in challenge.train + challenge.held_back]
    assert len(set(paths)) == 18
    assert load_challenge(settings, seed=2).train != challenge.train


def test_a_shots_file_is_trained_on_as_it_is(dataset, write):
    # Label 2 has no line in it, so it is new although it has training images.
    lines = ["TrainSet/Animal/c1/5.jpg 1", "Animal/c0/0.jpg 0", "TrainSet/Animal/c1/2.jpg 1"]
    shots_file = write("shots.txt", "\n".join(lines))
    settings = dataset(3, 4, n_images=6, shots=1, shots_file=shots_file)
    challenge = load_challenge(settings, seed=1)
    assert [(s.path.rsplit("Animal/", 1)[1], s.label) for s in challenge.train] == [
        ("c1/5.jpg", 1), ("c0/0.jpg", 0), ("c1/2.jpg", 1)]
    assert challenge.base.tolist() == [0, 1] and challenge.new.tolist() == [2, 3]
    assert len(challenge.held_back) == 15
    assert not set(challenge.held_back) & set(challenge.train)
    assert load_challenge(settings, seed=2).train == challenge.train


@pytest.mark.parametrize("shots", [0, -1])
def test_no_shots_are_refused(dataset, shots):
    with pytest.raises(UserError, match=f"data.shots is {shots}"):
        load_challenge(dataset(1, 2, shots=shots), seed=1)


def test_a_missing_data_set_is_named(tmp_path):
    settings = SimpleNamespace(root=str(tmp_path / "none"), classes="classes.txt", domains=None,
                               train_list="train.txt", shots=4, val_shots=2, shots_file=None)
    with pytest.raises(UserError, match="classes.txt") as error:
        load_challenge(settings, seed=1)
    assert settings.root in str(error.value)


CHALLENGE = ["Animal_Bear", "Animal_polar_bear", "Caltech-101_ant", "Food-101_apple_pie",
             "Thu-dog_Shiba_Dog", "Stanford-Cars_Audi_TTS_Coupe_2012"]


@pytest.mark.parametrize("names", [CHALLENGE, *([name] for name in CHALLENGE), CHALLENGE[1:4],
                                   ["Animal_red_fox", "Object_blue_vase", "Food_lemon_pie"]])
def test_the_challenges_domains_are_told_by_the_prompts(write, names):
    path = write("classes.txt", "".join(f"{name} {i}\n" for i, name in enumerate(names)))
    domains = PromptLibrary(os.path.dirname(prompts.__file__)).domains
    found, said = told(lambda: read_classes(path, None, domains))
    assert found == read_classes(path) and said == []


@pytest.mark.parametrize("domains, expected", [
    (None, [("", "Polar bear"), ("", "hot dog")]), (False, [("", "Polar bear"), ("", "hot dog")]),
    (True, [("Polar", "bear"), ("hot", "dog")])])
def test_a_setting_decides_what_domains_are(dataset, write, domains, expected):
    settings = dataset(1, 2)
    write("Dataset/classes.txt", "Polar_bear 0\nhot_dog 1\n")
    settings.domains = domains
    challenge, said = told(lambda: load_challenge(settings, 1, {"animal"}))
    assert sorted(challenge.classes) == sorted(expected)
    assert [("kept whole" in text, "data.domains=true" in text) for text in said] == (
        [(True, True)] if domains is None else [])
    written = {None: "null", True: "true", False: "false"}[domains]
    assert load_config(None, [f"data.domains={written}"]).data.domains is domains


# What lies beside, and deeper


@pytest.mark.parametrize("name, there, others", [
    ("classes.txt", ["classes_b.txt", "Classes.txt", "class_names.txt", "train.txt", "classes/"],
     ["Classes.txt", "classes_b.txt", "class_names.txt"]),
    ("train.txt", ["train_label.txt", "Train.txt", "training.csv", "classes.txt", "TrainSet/"],
     ["Train.txt", "train_label.txt"]),
    ("TestSetB", ["TestSetA/", "testset/", "TestSetB.zip", "TrainSet/", ".TestSetC/"],
     ["testset", "TestSetA"]),
    ("lists/classes.txt", ["classes_b.txt", "lists/classes_a.txt"], ["lists/classes_a.txt"]),
    ("名.txt", ["名字.txt", "a.txt"], []), ("classes.txt", [], []),
    ("classes.txt", ["classes.txt.txt"], ["classes.txt.txt"]),
])
def test_what_may_be_meant_is_found(write, tmp_path, name, there, others):
    for each in there:
        write(f"Dataset/{each}" + ("x.jpg" if each.endswith("/") else ""))
    assert named_alike(str(tmp_path / "Dataset"), name) == others


@pytest.mark.parametrize("key, missing, there, cure", [
    ("classes", "classes.txt", "classes_b.txt", "data.classes=classes_b.txt"),
    ("train_list", "train.txt", "train_a.txt", "data.train_list=train_a.txt"),
    ("test_dir", "TestSetB", "TestSetA", "data.test_dir=TestSetA")])
def test_a_missing_list_names_what_lies_beside_it(dataset, write, tmp_path, key, missing, there,
                                                  cure):
    settings, folder = dataset(1, 2), tmp_path / "Dataset"
    write("Dataset/TestSetB/1.jpg")
    os.rename(folder / missing, folder / there)
    with pytest.raises(UserError, match=f"{missing} is not there.*did you mean {cure}") as error:
        data_path(settings, key)
    assert str(folder / missing) in str(error.value)
    if key != "test_dir":
        with pytest.raises(UserError, match=cure):
            load_challenge(settings, 1)


@pytest.mark.parametrize("inner", ["Dataset", "dataset", "jittor", "Dataset/Dataset"])
def test_data_one_folder_deeper_are_used_and_said(dataset, tmp_path, inner):
    settings = dataset(2, 3)
    expected = load_challenge(settings, 1)
    (tmp_path / "new" / inner).parent.mkdir(parents=True)
    os.rename(tmp_path / "Dataset", tmp_path / "new" / inner)
    (tmp_path / "new" / "__MACOSX").mkdir()
    os.rename(tmp_path / "new", tmp_path / "Dataset")
    challenge, said = told(lambda: load_challenge(settings, 1))
    assert challenge.classes == expected.classes
    assert [s.label for s in challenge.train] == [s.label for s in expected.train]
    assert set(said) == {f"{settings.root}: what lies in {settings.root}/{inner} is used"}


def test_what_lies_in_the_folder_itself_comes_first(dataset, write):
    settings = dataset(2, 3)
    expected = load_challenge(settings, 1)
    write("Dataset/Dataset/classes.txt", "A_other 0\n")
    challenge, said = told(lambda: load_challenge(settings, 1))
    assert challenge.classes == expected.classes and said == []


@pytest.mark.parametrize("inner", ["TestSetB", "images", "testsetb/testsetb"])
def test_images_one_folder_deeper_are_used_and_said(write, tmp_path, inner):
    write(f"TestSetB/{inner}/b.jpg"), write(f"TestSetB/{inner}/a.jpg")
    write("TestSetB/.DS_Store"), write("TestSetB/__MACOSX/TestSetB/._a.jpg")
    folder = str(tmp_path / "TestSetB")
    paths, said = told(lambda: list_images(folder))
    assert paths == [f"{folder}/{inner}/a.jpg", f"{folder}/{inner}/b.jpg"]
    assert said == [f"{folder}: what lies in {folder}/{inner} is used"]


def test_of_two_folders_of_images_none_is_chosen(write, tmp_path):
    write("TestSetB/cat/a.jpg"), write("TestSetB/dog/a.jpg")
    with pytest.raises(UserError, match="no images in"):
        list_images(str(tmp_path / "TestSetB"))


# Images that cannot be decoded


def all_but(*lost):
    """For `in_place_of_lost`: every image is whole but these, and what it was asked for."""
    asked = []

    def are_whole(samples):
        asked.append(list(samples))
        return [sample not in lost for sample in samples]

    return are_whole, asked


@pytest.fixture
def chosen():
    """A `Challenge` of 3 classes with 8, 6 and 4 images; 4 shots, 2 for validation."""
    settings = SimpleNamespace(shots=4, val_shots=2)
    classes = [ClassName("A", name) for name in "abc"]
    return few_shot(classes, numbered([8, 6, 4]), settings, seed=3)


def test_whole_images_stay_as_they_are_chosen(chosen):
    are_whole, asked = all_but()
    found, said = told(lambda: in_place_of_lost(chosen, are_whole))
    assert said == [] and found.train == chosen.train and found.validation == chosen.validation
    assert found.held_back == chosen.held_back and asked[:2] == [chosen.train, chosen.validation]


def test_the_next_in_the_seeds_order_takes_a_lost_ones_place(chosen):
    order = [numbered([8])[i] for i in np.random.RandomState([3, 0]).permutation(8)]
    assert set(order[:4]) == {s for s in chosen.train if s.label == 0}
    # A shot and the first that would take its place.
    are_whole, asked = all_but(order[1], order[4])
    found, said = told(lambda: in_place_of_lost(chosen, are_whole))
    assert max(collections.Counter(sum(asked, [])).values()) == 1
    expected = [order[5] if sample == order[1] else sample for sample in chosen.train]
    assert found.train == expected and len(found.train) == len(chosen.train)
    assert any(f"1 training images that cannot be decoded are replaced by the next of their "
               f"classes, such as {order[1].path} by {order[5].path}" in text for text in said)
    assert not {order[1], order[4], order[5]} & set(found.validation)
    assert [s.label for s in found.validation] == [0, 0, 1, 1]
    assert order[5] not in found.held_back


def test_a_class_without_more_keeps_what_is_whole(chosen):
    lost = [s for s in chosen.train if s.label == 2][:3]
    found, said = told(lambda: in_place_of_lost(chosen, all_but(*lost)[0]))
    assert [s.label for s in found.train] == [0] * 4 + [1] * 4 + [2]
    assert said == [f"3 training images that cannot be decoded are left out, such as "
                    f"{lost[0].path}, as there is no other to take"]


def test_a_validation_image_is_replaced_too(chosen):
    lost = chosen.validation[0]
    found, said = told(lambda: in_place_of_lost(chosen, all_but(lost)[0]))
    assert found.train == chosen.train and lost not in found.validation
    assert [s.label for s in found.validation] == [s.label for s in chosen.validation]
    assert not set(found.validation) & set(found.train)
    assert len(said) == 1 and "1 validation images" in said[0] and lost.path in said[0]


def test_a_class_of_which_nothing_is_whole_is_refused(chosen):
    lost = [s for s in numbered([8, 6, 4]) if s.label == 1]
    with pytest.raises(UserError, match=r"the class 'b': none of its training images"):
        in_place_of_lost(chosen, all_but(*lost)[0])


def test_shots_of_a_file_are_not_replaced():
    settings = SimpleNamespace(shots=4, val_shots=0)
    samples = numbered([8, 6])
    given = few_shot([ClassName("A", name) for name in "ab"], samples, settings, 3,
                     train=[samples[0], samples[1], samples[9]])
    found, said = told(lambda: in_place_of_lost(given, all_but(samples[0])[0]))
    assert found.train == [samples[1], samples[9]]
    assert len(said) == 1 and "1 training images that cannot be decoded are left out" in said[0]


@pytest.mark.parametrize("content, kind", [
    (pickle.dumps({"train": [["a.jpg", 0]], "val": []}, 2), "a pickle"),
    (pickle.dumps({"train": []}, 4), "a pickle"), (pickle.dumps({"train": []}, 0), None),
    (b"PK\3\4\0\0\0", "no text"), (b"\0" * 40, "no text")])
def test_shots_that_are_no_text_are_named(dataset, write, content, kind):
    settings = dataset(1, 2, shots_file=write("shot_4-seed_1.pkl", content))
    with pytest.raises(UserError, match=f"shot_4-seed_1.pkl is {kind}.*lines 'path label'"
                       if kind else "shot_4-seed_1.pkl, line 1") as error:
        load_challenge(settings, 1)
    assert len(str(error.value).splitlines()) == 1


# Test images and their labels


def test_images_come_in_natural_order(write, tmp_path):
    names = ["image_2.jpg", "image_10.JPG", "image_100.jpeg", "other.png", "x.bmp", "x.webp"]
    for name in names[::-1] + ["labels.txt", "image_3.jpg.part", "Thumbs.db"]:
        write(f"TestSet/{name}")
    with pytest.warns(UserWarning, match="2 names are left out, such as 'image_3.jpg.part'"):
        images = list_images(str(tmp_path / "TestSet"))
    assert images == [str(tmp_path / "TestSet" / name) for name in names]


def test_natural_order_counts_every_number_and_is_total():
    names = ["1.jpg", "2.jpg", "10.jpg", "a.jpg", "a1.jpg", "a1_2.jpg", "a1_10.jpg", "a02.jpg",
             "a2.jpg", "a10.jpg", "b1.jpg"]
    for seed in range(20):
        shuffled = random.Random(seed).sample(names, len(names))
        assert sorted(shuffled, key=natural_key) == sorted(names, key=natural_key)
    for smaller, larger in (("2.jpg", "10.jpg"), ("a1_2.jpg", "a1_10.jpg"),
                            ("a2.jpg", "a10.jpg"), ("a10.jpg", "b1.jpg")):
        assert natural_key(smaller) < natural_key(larger)
    assert natural_key("a02.jpg") != natural_key("a2.jpg")


def test_a_superscript_in_a_name_is_no_number():
    assert sorted(["1²10.jpg", "1²3.jpg"], key=natural_key) == ["1²3.jpg", "1²10.jpg"]


def test_a_folder_without_images_is_named(write, tmp_path):
    text = write("TestSet/notes.txt")
    for folder, message in ((tmp_path / "none", "cannot read the image folder"),
                            (text, "cannot read the image folder"),
                            (tmp_path / "TestSet", "no images in")):
        with pytest.raises(UserError, match=message) as error:
            list_images(str(folder))
        assert str(folder) in str(error.value)


def test_labels_are_by_file_name(write):
    path = write("labels.txt", "\ufeffimage_1.jpg 2\r\n\r\nTestSetB/image 2.jpg 0\r\n")
    assert read_labels(path, 3) == {"image_1.jpg": 2, "image 2.jpg": 0}


def test_wrong_label_files_are_named(write, tmp_path):
    outside = write("outside.txt", "a.jpg 0\nb.jpg 3\n")
    without = write("without.txt", "a.jpg\n")
    for path, message in ((outside, r"line 2: label 3 is outside .* \(0 to 2\)"),
                          (without, "line 1: 'a.jpg' is not of the form"),
                          (str(tmp_path / "none.txt"), "No such file")):
        with pytest.raises(UserError, match=message) as error:
            read_labels(path, 3)
        assert path in str(error.value)
