"""The benchmarks' splits: CoOp's JSON, FGVC-Aircraft's and ImageNet's lists, 2SFS's JSON lines."""

import glob
import json
import os
import pickle
from types import SimpleNamespace

import pytest

import configs
from configs import load_config
from data.lists import ClassName
from data.splits import load_benchmark, read_benchmark
from prompts import PromptLibrary
from system.errors import UserError

NAMES = ["annual_crop land", "forest", "river", "lake", "sea"]


@pytest.fixture
def write(tmp_path):
    """write(name, content) -> path of a file in `tmp_path`; its folders are made."""
    def write_file(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)
    return write_file


@pytest.fixture
def eurosat(write, tmp_path):
    """Settings of a benchmark of five classes in CoOp's form: 6, 3 and 2 images a class."""
    split = {}
    for part, start, n in (("train", 0, 6), ("val", 6, 3), ("test", 9, 2)):
        split[part] = [[f"{label}/{start + i}.jpg", label, name]
                       for label, name in enumerate(NAMES) for i in range(n)]
        for file, _, _ in split[part]:
            write(f"eurosat/2750/{file}")
    write("eurosat/split_zhou_EuroSAT.json", split)
    return SimpleNamespace(
        root=str(tmp_path / "eurosat"), split="split_zhou_EuroSAT.json", split_images="2750",
        domain="EuroSAT", setting="all-to-all", shots=4, val_shots=2, shots_file=None)


def changed(settings, **changes):
    return SimpleNamespace(**{**vars(settings), **changes})


def test_a_split_is_read_as_it_is(eurosat, tmp_path):
    benchmark = read_benchmark(eurosat)
    assert benchmark.names == NAMES
    assert [len(part) for part in benchmark[1:]] == [30, 15, 10]
    assert benchmark.test[2] == (str(tmp_path / "eurosat/2750/1/9.jpg"), 1)


def test_all_to_all_trains_on_every_class(eurosat):
    challenge = load_benchmark(eurosat, seed=1)
    assert challenge.classes[0] == ClassName("EuroSAT", "annual crop land")
    assert challenge.base.tolist() == [0, 1, 2, 3, 4] and challenge.new.tolist() == []
    assert [len(challenge.train), len(challenge.validation)] == [20, 10]
    images = {os.path.basename(s.path) for s in challenge.validation}
    assert images <= {"6.jpg", "7.jpg", "8.jpg"}  # from the split's own validation part


def test_base_to_new_trains_on_the_first_half_rounded_up(eurosat):
    challenge = load_benchmark(changed(eurosat, setting="base-to-new"), seed=1)
    assert challenge.base.tolist() == [0, 1, 2] and challenge.new.tolist() == [3, 4]
    for part, n in ((challenge.train, 12), (challenge.held_back, 6), (challenge.validation, 6)):
        assert len(part) == n and {s.label for s in part} == {0, 1, 2}
    assert len(challenge.classes) == 5
    all_classes = load_benchmark(eurosat, seed=1)
    assert challenge.train == [s for s in all_classes.train if s.label < 3]


def rows(labels, images):
    return "".join(json.dumps({
        "_impath": f"eurosat/2750/{label}/{i}.jpg", "_label": label, "_domain": 0,
        "_classname": NAMES[label]}) + "\n" for label in labels for i in images)


def test_the_few_shot_choice_of_2sfs_is_taken(eurosat, write):
    train = write("eurosat/split_fewshot/shot_2-seed_1_train.jsonl", rows(range(5), (5, 1)))
    challenge = load_benchmark(changed(eurosat, shots_file=train), seed=7)
    assert [os.path.relpath(s.path, eurosat.root) for s in challenge.train[:3]] == [
        "2750/0/5.jpg", "2750/0/1.jpg", "2750/1/5.jpg"]
    assert len(challenge.held_back) == 20
    write("eurosat/split_fewshot/shot_2-seed_1_val.jsonl", rows(range(5), (8,)))
    challenge = load_benchmark(changed(eurosat, shots_file=train, setting="base-to-new"), seed=7)
    assert [os.path.relpath(s.path, eurosat.root) for s in challenge.validation] == [
        "2750/0/8.jpg", "2750/1/8.jpg", "2750/2/8.jpg"]
    assert {s.label for s in challenge.train} == {0, 1, 2}


@pytest.mark.parametrize("content, message", [
    ("[]\n", "line 1: \\[\\] is no object with"),
    ("{\n", "line 1: '{' is no object with"),
    (rows([1], [0]) + '{"_impath": "x"}\n', "line 2: .* is no object with"),
    (rows([1], [0]).replace("forest", "wood"), "label 1 and name 'wood' are no class"),
    (rows([1], ["../../../../1/0"]), "line 1: .* leaves the data's folders"),
    ('{"_impath": "x", "_label": [1], "_classname": "forest"}\n', "are no class of"),
    (rows([1], [77]), "line 1: no image 'eurosat/2750/1/77.jpg'"),
])
def test_a_bad_few_shot_choice_is_named(eurosat, write, content, message):
    path = write("bad_train.jsonl", content)
    with pytest.raises(UserError, match=message) as error:
        load_benchmark(changed(eurosat, shots_file=path), seed=1)
    assert path in str(error.value)


def windows(path):
    return path.replace("/", "\\")


def test_windows_separators_are_read(eurosat, write, tmp_path):
    expected = load_benchmark(eurosat, seed=1).train
    split = json.loads((tmp_path / "eurosat/split_zhou_EuroSAT.json").read_text())
    write("eurosat/split_zhou_EuroSAT.json", {
        part: [[windows(file), label, name] for file, label, name in samples]
        for part, samples in split.items()})
    assert load_benchmark(eurosat, seed=1).train == expected
    choice = rows(range(5), (5, 1))
    given = load_benchmark(changed(eurosat, shots_file=write("a.jsonl", choice)), seed=1).train
    written = choice.replace("/", "\\\\")
    assert load_benchmark(changed(eurosat, shots_file=write("b.jsonl", written)),
                          seed=1).train == given


def test_a_file_that_is_really_called_so_comes_first(eurosat, write, tmp_path):
    write("eurosat/2750/0\\0.jpg")
    write("eurosat/split_zhou_EuroSAT.json", good(("0\\0.jpg", 0, "a")))
    (sample,) = read_benchmark(eurosat).train
    assert sample.path == str(tmp_path / "eurosat/2750/0\\0.jpg")


def test_a_benchmark_one_folder_deeper_is_used_and_said(eurosat, tmp_path):
    expected = [s.label for s in load_benchmark(eurosat, seed=1).train]
    os.rename(tmp_path / "eurosat", tmp_path / "inner")
    os.mkdir(tmp_path / "eurosat")
    os.rename(tmp_path / "inner", tmp_path / "eurosat/eurosat")
    with pytest.warns(UserWarning, match="what lies in .*eurosat/eurosat is used"):
        assert [s.label for s in load_benchmark(eurosat, seed=1).train] == expected


class Datum:
    """Pickles as Dassl's, of which CoOp's few-shot choices are."""

    def __init__(self, label, image, place="/home/somebody/data/eurosat/2750", name=None):
        self._impath = f"{place}/{label}/{image}.jpg"
        self._label, self._domain, self._classname = label, 0, name or NAMES[label]


def pickled(path, protocol=pickle.HIGHEST_PROTOCOL, **parts):
    path.write_bytes(pickle.dumps(parts, protocol))
    return str(path)


@pytest.mark.parametrize("place", ["/home/somebody/data/eurosat/2750", "2750", "D:\\eurosat\\2750"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_few_shot_choice_of_coop_is_taken(eurosat, tmp_path, place, protocol):
    path = pickled(tmp_path / "shot_2-seed_1.pkl", protocol,
                   train=[Datum(label, image, place) for label in range(5) for image in (5, 1)],
                   val=[Datum(label, 8, place) for label in range(5)])
    for setting, n in (("all-to-all", 5), ("base-to-new", 3)):
        challenge = load_benchmark(changed(eurosat, shots_file=path, setting=setting), seed=7)
        assert [os.path.relpath(s.path, eurosat.root) for s in challenge.train] == [
            f"2750/{label}/{image}.jpg" for label in range(n) for image in (5, 1)]
        assert [(os.path.relpath(s.path, eurosat.root), s.label)
                for s in challenge.validation] == [(f"2750/{i}/8.jpg", i) for i in range(n)]


@pytest.mark.parametrize("parts, words", [
    ({"train": "x"}, "another kind than CoOp's"), ({"train": [3]}, r"train\[0\]: 3 is no object"),
    ({"train": [Datum(1, 77)]}, "no image '/home/somebody/data/eurosat/2750/1/77.jpg'"),
    ({"train": [Datum(1, 1, name="wood")]}, "label 1 and name 'wood' are no class"),
    ({"train": [Datum(1, 1)], "val": [Datum(0, "../../../secret")]}, r"val\[0\]: no image")])
def test_a_bad_choice_of_coops_is_named(eurosat, tmp_path, parts, words):
    (tmp_path / "secret.jpg").write_bytes(b"")
    path = pickled(tmp_path / "shot_4-seed_1.pkl", **parts)
    with pytest.raises(UserError, match=words) as error:
        load_benchmark(changed(eurosat, shots_file=path), seed=1)
    assert path in str(error.value)


def test_nothing_in_a_choice_of_coops_is_run(eurosat, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    path = pickled(tmp_path / "shot_4-seed_1.pkl", train=[Harm()])
    with pytest.raises(UserError, match="is no object with"):
        load_benchmark(changed(eurosat, shots_file=path), seed=1)
    assert not (tmp_path / "was_run").exists()


def good(row=("0/0.jpg", 0, "a"), **parts):
    return {"train": [list(row)], "val": [], "test": [], **parts}


@pytest.mark.parametrize("content, message", [
    ("{", "is not JSON"), ([], "is no split"), ({"train": [], "val": []}, "is no split"),
    (good(test=[["x.jpg", "0", "a"]]), r"test\[0\] is \['x.jpg', '0', 'a'\], not"),
    (good(val=[["x.jpg", 0]]), r"val\[0\]"), (good(val=[["x.jpg", True, "a"]]), r"val\[0\]"),
    (good(val=[["x.jpg", 0, "b"]]), r"val\[0\] calls label 0 'b', a row before it 'a'"),
    (good(("0/0.jpg", 1, "a")), "labels are not 0 to 0"),
    (good(test=3), "is no split"), ("[" * 100_000, "is not JSON"),
    (good(("../../0.jpg", 0, "a")), "leaves the benchmark's folder"),
    (good(("..\\..\\0.jpg", 0, "a")), "leaves the benchmark's folder"),
    (good(("0/none.jpg", 0, "a")), "no image .*0/none.jpg"),
])
def test_a_bad_split_is_named(eurosat, write, content, message):
    path = write("eurosat/split_zhou_EuroSAT.json", content)
    with pytest.raises(UserError, match=message) as error:
        load_benchmark(eurosat, seed=1)
    assert os.path.basename(path) in str(error.value)


def test_a_missing_split_and_an_unknown_setting_are_named(eurosat):
    with pytest.raises(UserError, match="cannot read .*none.json"):
        load_benchmark(changed(eurosat, split="none.json"), seed=1)
    with pytest.raises(UserError, match="did you mean data.split=split_zhou_EuroSAT.json"):
        load_benchmark(changed(eurosat, split="split_zhou_DTD.json"), seed=1)
    with pytest.raises(UserError, match="data.setting is 'few'.*all-to-all, base-to-new"):
        load_benchmark(changed(eurosat, setting="few"), seed=1)


def test_aircraft_are_read_by_variant(eurosat, write):
    write("eurosat/variants.txt", "707-320\nA340 \nDC-10\n")
    for part, image in (("train", "0000001"), ("val", "0000002"), ("test", "0000003")):
        write(f"eurosat/images_variant_{part}.txt", f"{image} A340\n{image[:-1]}9 DC-10\n")
    settings = changed(eurosat, split="variants.txt", split_images="images")
    benchmark = read_benchmark(settings)
    assert benchmark.names == ["707-320", "A340", "DC-10"]
    assert [os.path.relpath(s.path, eurosat.root) for s in benchmark.test] == [
        "images/0000003.jpg", "images/0000009.jpg"]
    assert [s.label for s in benchmark.train] == [1, 2]
    write("eurosat/images_variant_val.txt", "0000002 A340\n0000002 Concorde\n")
    with pytest.raises(UserError, match="images_variant_val.txt, line 2"):
        read_benchmark(settings)


def test_imagenet_is_read_by_folder(eurosat, write):
    """Two of ImageNet's classes have the same name; their folders tell them apart."""
    write("eurosat/classnames.txt", "n03 sunglasses\nn01 great white shark\nn02 sunglasses\n")
    for file in ("train/n02/n02_7.JPEG", "train/n03/n03_1.JPEG", "train/n01/n01_4.JPEG",
                 "train/n01/n01_33.JPEG", "val/n03/1.JPEG", "val/n01/2.JPEG"):
        write(f"eurosat/images/{file}")
    settings = changed(eurosat, split="classnames.txt", split_images="images", shots=1)
    assert read_benchmark(settings).names == ["great white shark", "sunglasses", "sunglasses"]
    assert [s.label for s in read_benchmark(settings).test] == [0, 2]
    challenge = load_benchmark(settings, seed=1)
    assert [s.label for s in challenge.train] == [0, 1, 2]
    assert [s.label for s in challenge.validation] == [0]  # what training leaves, not the test's
    loose = write("eurosat/images/val/3.JPEG")  # as the archive has them
    with pytest.raises(UserError, match="val/3.JPEG is in no class"):
        read_benchmark(settings)
    os.remove(loose)
    write("eurosat/classnames.txt", "n03 sunglasses\n")
    with pytest.raises(UserError, match="no name for the folder n01"):
        read_benchmark(settings)


def test_the_repositorys_benchmarks_name_their_files_and_templates():
    folder = os.path.dirname(configs.__file__)
    found = {}
    for path in glob.glob(os.path.join(folder, "*.yaml")):
        config = load_config(path)
        if config.data.split is not None:
            library = PromptLibrary(os.path.join(os.path.dirname(folder), config.prompts.dir))
            (text,) = library.prompts(ClassName(config.data.domain or "", "x"),
                                      config.prompts.general, config.prompts.domain)
            found[os.path.basename(path)[:-5]] = text
    assert found == {
        "caltech101": "a photo of a x.", "dtd": "x texture.",
        "eurosat": "a centered satellite photo of x.",
        "fgvc_aircraft": "a photo of a x, a type of aircraft.",
        "food101": "a photo of x, a type of food.", "imagenet": "a photo of a x.",
        "oxford_flowers": "a photo of a x, a type of flower.",
        "oxford_pets": "a photo of a x, a type of pet.", "stanford_cars": "a photo of a x.",
        "sun397": "a photo of a x.", "ucf101": "a photo of a person doing x."}
