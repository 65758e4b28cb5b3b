"""The merged config: every file of the repository, overrides, and what is refused."""

import glob
import os

import pytest
import yaml

import configs
from configs import COMPETITION, SAMPLE, differences, format_config, load_config
from pipeline.choice import choose_config, config_path
from system import places
from system.errors import UserError

FOLDER = os.path.dirname(os.path.abspath(configs.__file__))


@pytest.fixture
def config_file(tmp_path):
    """config_file(text) -> path of a YAML file with it."""
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return str(path)
    return write


def refusal(path=None, overrides=()):
    """The message of the `UserError` that these settings raise."""
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    return str(error.value)


# The repository's own files


def test_every_file_of_the_repository_is_known_and_says_something():
    paths = glob.glob(os.path.join(FOLDER, "*.yaml"))
    assert {"default.yaml", "competition.yaml", "photos.yaml"} <= {
        os.path.basename(path) for path in paths}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            changes = yaml.safe_load(file) or {}
        config = load_config(path)
        for section, values in changes.items():
            for key in values if isinstance(values, dict) else ():
                assert getattr(getattr(config, section), key) == values[key], path


def test_every_key_stands_once():
    """YAML takes the last of two equal keys without a word."""
    def check(node, path):
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(set(keys)) == len(keys), f"{path}: {keys}"
            for _, value in node.value:
                check(value, path)

    for path in glob.glob(os.path.join(FOLDER, "*.yaml")):
        with open(path, encoding="utf-8") as file:
            check(yaml.compose(file), path)


def test_a_key_that_may_be_null_has_an_example():
    """By which a value is checked, as by the default of the others."""
    null = {f"{section}.{key}" for section, values in load_config().to_dict().items()
            if isinstance(values, dict) for key, value in values.items() if value is None}
    null |= {key for key, value in load_config().to_dict().items() if value is None}  # "workers"
    assert null == set(configs._OR_NULL)


def test_settings_are_attributes():
    config = load_config()
    assert config.seed == 1
    assert config.lora.rank == 4 and isinstance(config.lora.lr, float)
    assert config.lora.params == ["q", "k", "v"]
    assert config.data.shots_file is None
    assert config.to_dict()["lora"] == config.lora.to_dict()
    for missing in (lambda: config.lora.rnak, lambda: config.rank):
        with pytest.raises(AttributeError, match="no config key"):
            missing()


def test_the_printed_config_is_a_config_file(config_file):
    config = load_config(None, ["prompt.init=ein Foto für", "lora.lr=3e-5"])
    again = load_config(config_file(format_config(config)))
    assert again.to_dict() == config.to_dict()
    assert again.prompt.init == "ein Foto für"


# Merging


def test_a_file_changes_its_own_keys_alone(config_file):
    path = config_file("lora:\n  rank: 2\ndata:\n  shots_file: shots.txt\n")
    expected = load_config().to_dict()
    expected["lora"]["rank"] = 2
    expected["data"]["shots_file"] = "shots.txt"
    assert load_config(path).to_dict() == expected
    assert load_config().lora.rank == 4  # the default is not changed for later


@pytest.mark.parametrize("text", ["", "# a comment alone\n", "\ufeff", "---\n"])
def test_an_empty_file_changes_nothing(config_file, text):
    assert load_config(config_file(text)).to_dict() == load_config().to_dict()


def test_a_byte_order_mark_and_crlf_are_read(config_file):
    assert load_config(config_file("\ufefflora:\r\n  rank: 2\r\n")).lora.rank == 2


def test_the_command_line_is_stronger_than_the_file_and_the_last_than_the_first(config_file):
    path = config_file("lora:\n  rank: 2\n  alpha: 3.0\n")
    config = load_config(path, ["lora.rank=8", "lora.rank=16"])
    assert config.lora.rank == 16 and config.lora.alpha == 3.0


@pytest.mark.parametrize("override, section, key, expected", [
    ("lora.alpha=2", "lora", "alpha", 2.0),
    ("lora.lr=2e-4", "lora", "lr", 2e-4),
    ("lora.lr=1.0e-3", "lora", "lr", 1e-3),
    ("lora.encoder=text", "lora", "encoder", "text"),
    ("lora.params=[q, v]", "lora", "params", ["q", "v"]),
    ("train.scale=[0, 1]", "train", "scale", [0.0, 1.0]),
    ("train.scale=[5e-1, 1]", "train", "scale", [0.5, 1.0]),
    ("head.channel_reweighting=false", "head", "channel_reweighting", False),
    ("prompts.max_tokens=20", "prompts", "max_tokens", 20),
    ("prompts.max_tokens=null", "prompts", "max_tokens", None),
    ("data.root=/a=b/c d", "data", "root", "/a=b/c d"),
    ("prompt.init='a photo: of'", "prompt", "init", "a photo: of"),
])
def test_overrides_are_yaml(override, section, key, expected):
    value = getattr(getattr(load_config(None, [override]), section), key)
    assert value == expected and type(value) is type(expected)
    if isinstance(expected, list):
        assert [type(v) for v in value] == [type(v) for v in expected]


def test_numbers_in_a_file_are_read_like_those_of_the_command_line(config_file):
    config = load_config(config_file("lora:\n  lr: 2e-4\n  alpha: 2\n"))
    assert config.lora.lr == 2e-4 and type(config.lora.lr) is float
    assert config.lora.alpha == 2.0 and type(config.lora.alpha) is float


def test_a_key_outside_the_sections_can_be_overridden():
    assert load_config(None, ["seed=7"]).seed == 7


# Refusals


@pytest.mark.parametrize("override, unknown, meant", [
    ("lora.rnak=4", "lora.rnak", "lora.rank"),
    ("laro.rank=4", "laro.rank", "lora.rank"),
    ("LORA.RANK=4", "LORA.RANK", "lora.rank"),
    ("lora_rank=4", "lora_rank", "lora.rank"),
    ("rank=4", "rank", "lora.rank"),
    ("rnak=4", "rnak", "lora.rank"),
    ("model.rank=4", "model.rank", "lora.rank"),
    ("shots=8", "shots", "data.shots"),
    ("n_shots=8", "n_shots", "data.shots"),
    ("promts.dir=x", "promts.dir", "prompts.dir"),
    ("data.train_lst=x", "data.train_lst", "data.train_list"),
    ("SEED=1", "SEED", "seed"),
    ("num_workers=1", "num_workers", "workers"),
    ("weights=x", "weights", "clip.weights or aux.weights"),
    ("batch_size=4", "batch_size", "train.batch_size or test.batch_size"),
    ("batch-size=4", "batch-size", "train.batch_size or test.batch_size"),
    ("tran.batch_size=4", "tran.batch_size", "train.batch_size or test.batch_size"),
    ("lr=1e-4", "lr", "prompt.lr, lora.lr or aux.lr"),
    ("epoch=1", "epoch", "prompt.epochs, train.epochs, head.epochs or aux.epochs"),
    ("oods=1", "oods", "ood.score, ood.recall or ood.negative_share"),
])
def test_an_unknown_key_is_named_with_those_that_may_be_meant(override, unknown, meant):
    message = refusal(None, [override])
    assert f"unknown config key '{unknown}'" in message
    assert message.endswith(f"did you mean {meant}?")
    assert "command line" in message


def test_a_key_like_no_other_is_told_where_all_are():
    assert refusal(None, ["gpu=0"]).endswith("configs/default.yaml has them all")


def test_a_dotted_key_in_a_file_is_told_how_to_write_it(config_file):
    assert "write 'lora: {rank: …}'" in refusal(config_file("lora.rank: 2\n"))


def test_an_unknown_key_of_a_file_is_named_with_the_file(config_file):
    for text, unknown in (("lora:\n  rnak: 4\n", "lora.rnak"), ("7: 4\n", "7")):
        path = config_file(text)
        message = refusal(path)
        assert path in message and f"unknown config key '{unknown}'" in message


@pytest.mark.parametrize("override, message", [
    ("lora.rank=4.0", "lora.rank must be a int like 4, not 4.0"),
    ("lora.rank=four", "lora.rank must be a int like 4, not 'four'"),
    ("lora.rank=true", "lora.rank must be a int like 4, not True"),
    ("lora.rank=null", "lora.rank must be a int like 4, not None"),
    ("lora.rank=[4]", "lora.rank must be a int like 4, not [4]"),
    ("lora.rank.x=4", "lora.rank must be a int like 4, not {'x': 4}"),
    ("lora.alpha=true", "lora.alpha must be a float like 1.0, not True"),
    ("lora.alpha=big", "lora.alpha must be a float like 1.0, not 'big'"),
    ("lora.encoder=3", "lora.encoder must be a str like 'both', not 3"),
    ("lora.params=q", "lora.params must be a list like ['q', 'k', 'v'], not 'q'"),
    ("head.channel_reweighting=1", "head.channel_reweighting must be a bool like False, not 1"),
    ("train.scale=0.5", "train.scale must be a list like [0.5, 1.0], not 0.5"),
    ("train.scale=[0.5, big]", "train.scale[1] must be a float like 0.5, not 'big'"),
    ("lora=4", "lora is a section; set one of its keys: lora.encoder, lora.params"),
    ("lora=", "lora is a section; set one of its keys"),
])
def test_a_wrong_type_is_named_with_the_default(override, message):
    assert message in refusal(None, [override])


def test_a_wrong_type_in_a_file_is_named_with_the_file(config_file):
    path = config_file("lora:\n  rank: four\n")
    assert path in refusal(path) and "lora.rank must be a int" in refusal(path)


@pytest.mark.parametrize("override, message", [
    ("lora.rank", "'lora.rank' is not of the form key=value"),
    ("", "'' is not of the form key=value"),
    ("=3", "unknown config key ''"),
    ("lora.params=[q", "'lora.params=[q': the value is not YAML"),
    ("prompt.init=a photo: of: a", "the value is not YAML"),
    ("photos", "did you mean --config configs/photos.yaml?"),
    ("configs/photo", "did you mean --config configs/photos.yaml?"),
    ("rank", "write lora.rank=VALUE, without spaces"),
    ("lora.rank", "write lora.rank=VALUE, without spaces"),
    (FOLDER, f"own pictures are named with --images {FOLDER}"),
])
def test_an_override_of_another_form_is_refused(override, message):
    assert message in refusal(None, [override])


@pytest.mark.parametrize("text, message", [
    ("- lora\n- data\n", "must be a list of 'key: value' lines"),
    ("lora\n", "must be a list of 'key: value' lines"),
    ("lora: [1\n", "is not valid YAML"),
    ("lora:\n\trank: 4\n", "is not valid YAML"),
    ("prompt:\n  init: caf\xe9\n".encode("latin-1"), "is not valid YAML"),
])
def test_a_file_of_another_form_is_refused(config_file, text, message):
    path = config_file(text)
    assert path in refusal(path) and message in refusal(path)


def test_a_missing_file_is_named(tmp_path):
    for path in (str(tmp_path / "none.yaml"), str(tmp_path)):
        assert f"cannot read the config {path}" in refusal(path)


def test_a_config_is_found_beside_the_scripts_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(SAMPLE).data.sample
    assert "did you mean --config configs/photos.yaml?" in refusal("photos")
    (tmp_path / "configs").mkdir()
    (tmp_path / SAMPLE).write_text("seed: 5\n")  # one's own in the working folder wins
    assert load_config(SAMPLE).to_dict() == load_config(None, ["seed=5"]).to_dict()


# Paths


def value_of(config, key):
    for part in key.split("."):
        config = getattr(config, part)
    return config


def test_every_setting_that_holds_a_path_is_known_as_one():
    assert configs.PATHS <= set(configs.all_keys())
    words = {"root", "dir", "weights", "images", "classes", "split", "list", "file", "labels"}
    assert configs.PATHS >= {key for key in configs.all_keys() if words & set(
        key.rpartition(".")[2].split("_"))}


@pytest.mark.parametrize("key", sorted(configs.PATHS))
def test_a_path_may_begin_at_the_home_folder(config_file, monkeypatch, key):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert value_of(load_config(None, [f"{key}=~/a b/x.pkl"]), key) == "/home/somebody/a b/x.pkl"
    assert value_of(load_config(None, [f"{key}='~/x'"]), key) == "/home/somebody/x"
    assert value_of(load_config(None, [f"{key}=a/~/x~"]), key) == "a/~/x~"
    section, _, name = key.partition(".")
    path = config_file(f"{section}: {{{name}: ~/x}}")
    if key in configs._IN_ROOT:
        assert "leaves data.root" in refusal(path)
    else:
        assert value_of(load_config(path), key) == "/home/somebody/x"


def test_a_home_folder_of_another_user_is_found():
    root = os.path.expanduser("~root")
    assert load_config(None, ["data.root=~root/x"]).data.root == f"{root}/x"
    assert load_config(None, ["data.root=~"]).data.root == os.path.expanduser("~")
    assert load_config(None, ["data.root=~no such user/x"]).data.root == "~no such user/x"


@pytest.mark.parametrize("path", ["2750", "2024-01-01", "on", "a #2", "a: b", "[x]", "!x", "*x",
                                  "C:\\x", "1e3", "ümlaut/大熊猫"])
def test_the_command_line_takes_a_path_as_it_is(path):
    assert load_config(None, [f"data.root={path}"]).data.root == path
    assert load_config(None, [f"data.labels= {path} "]).data.labels == path


@pytest.mark.parametrize("text", ["", "null", "~"])
def test_a_path_may_be_left_out_where_null_means_that(text):
    assert load_config(None, [f"data.labels={text}"]).data.labels is None


@pytest.mark.parametrize("override", ["data.root=", "data.root=null", "data.root=''",
                                      "data.labels=' '"])
def test_an_empty_path_is_refused(override):
    assert override.partition("=")[0] in refusal(None, [override])


def test_positions_may_be_block_numbers():
    assert load_config(None, ["lora.positions=[0, 11]"]).lora.positions == [0, 11]


def test_a_date_that_does_not_exist_is_refused(config_file):
    refusal(None, ["prompt.init=2024-13-45"])
    refusal(config_file("output:\n  cache_dir: 2024-13-45\n"))


# Differences


def test_differences_show_both_values():
    saved = load_config(None, ["lora.rank=2", "data.shots=1", "seed=5"]).to_dict()
    current = load_config(None, ["lora.encoder=text"]).to_dict()
    assert differences(saved, current, ("lora", "data", "train")) == [
        "lora.encoder: 'both' when trained, 'text' now",
        "lora.rank: 2 when trained, 4 now",
        "data.shots: 1 when trained, 4 now"]
    assert differences(saved, current, ("seed",)) == ["seed: 5 when trained, 1 now"]


def test_equal_settings_and_other_sections_do_not_differ():
    saved, current = load_config().to_dict(), load_config(None, ["lora.rank=2"]).to_dict()
    assert differences(saved, saved, tuple(saved)) == []
    assert differences(saved, current, ("data", "prompts")) == []


def test_a_key_that_one_side_lacks_differs():
    assert differences({"a": {"x": 1}}, {"a": {"y": 2}}, ("a",)) == [
        "a.x: 1 when trained, None now", "a.y: None when trained, 2 now"]
    assert differences({}, {"a": {"x": 1}}, ("a",)) == ["a: None when trained, {'x': 1} now"]
    assert differences({}, {}, ("a",)) == []


@pytest.mark.parametrize("override", [
    "train.batch_size=0", "mta.views=0", "lora.rank=0", "lora.lr=-1e-4", "workers=-1",
    "train.scale=[-0.5, 1]", "data.shots=0"])
def test_a_number_out_of_range_is_named(override):
    message = refusal(None, [override])
    assert override.partition("=")[0] in message and "at least" in message


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder, *names):
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")


WHOLE = ("ViT-B-32.pkl", "Dataset/classes.txt", "Dataset/train.txt", "Dataset/TrainSet/",
         "Dataset/TestSetB/")


@pytest.mark.parametrize("there", [(), ("Dataset/",), ("ViT-B-32.pkl",)])
def test_without_data_the_sample_set_is_chosen(empty_folder, capsys, there):
    fill(empty_folder, *there)
    assert config_path(None) == SAMPLE
    assert capsys.readouterr().err == f"{SAMPLE}: the sample set, as there is no data in Dataset/\n"


def test_with_data_and_weights_the_competition_is_chosen(empty_folder, capsys):
    fill(empty_folder, *WHOLE)
    assert config_path(None) == COMPETITION
    assert "in place" in capsys.readouterr().err


@pytest.mark.parametrize("missing", WHOLE)
def test_half_of_the_data_is_an_error_that_names_the_other_half(empty_folder, missing):
    fill(empty_folder, *(name for name in WHOLE if name != missing))
    with pytest.raises(UserError) as error:
        config_path(None)
    named = str(error.value).partition("but ")[2].partition(" missing")[0]
    assert named == missing.rstrip("/")


CLASSES_B = tuple(name.replace("classes.txt", "classes_b.txt") for name in WHOLE)


@pytest.mark.parametrize("there, overrides", [
    ((*WHOLE[1:], "other.pkl"), ["clip.weights=other.pkl"]),
    (WHOLE[1:], ["clip.weights=ViT-B/32"]),  # a name, which is downloaded
    (CLASSES_B, ["data.classes=classes_b.txt"]),
    ((*WHOLE[:-1], "Dataset/TestSetA/"), ["data.test_dir=TestSetA"]),
    ((*WHOLE[:-1], "elsewhere/"), ["data.test_dir=../elsewhere"]),
    (("ViT-B-32.pkl", "Dataset/split.json"), ["data.split=split.json"]),
    ([name.replace("Dataset", "else where") for name in WHOLE], ["data.root=else where"]),
    ([name.replace("Dataset", "Dataset/Dataset") for name in WHOLE], []),
])
def test_the_settings_that_will_count_choose_the_config(empty_folder, there, overrides):
    fill(empty_folder, *there)
    assert config_path(None, overrides) == COMPETITION


@pytest.mark.parametrize("needs, missing", [
    (("weights", "train"), ["Dataset/TestSetB/"]),
    (("weights", "test"), ["Dataset/TrainSet/", "Dataset/train.txt"]),
    (("test",), ["ViT-B-32.pkl", "Dataset/TrainSet/", "Dataset/train.txt"]),
    (("weights",), ["Dataset/TestSetB/", "Dataset/TrainSet/", "Dataset/classes.txt"])])
def test_what_a_script_does_not_read_need_not_be_there(empty_folder, needs, missing):
    fill(empty_folder, *(name for name in WHOLE if name not in missing))
    assert config_path(None, (), needs) == COMPETITION


@pytest.mark.parametrize("there, cure", [
    (CLASSES_B, "data.classes=classes_b.txt"),
    ((*WHOLE[:-1], "Dataset/TestSetA/"), "data.test_dir=TestSetA"),
    ((*WHOLE[1:], "ViT-B-32.pt"), "clip.weights=ViT-B-32.pt")])
def test_what_may_be_meant_instead_is_named(empty_folder, there, cure):
    fill(empty_folder, *there)
    with pytest.raises(UserError, match=f"missing.*set {cure}"):
        config_path(None)
    assert config_path(None, [cure]) == COMPETITION


@pytest.mark.parametrize("there", [(), ("elsewhere/",), ("elsewhere/.DS_Store",)])
def test_the_sample_set_is_not_drawn_into_a_folder_that_the_command_line_names(
        empty_folder, there):
    fill(empty_folder, *there)
    with pytest.raises(UserError, match="no data in data.root=elsewhere.*--config"):
        config_path(None, ["data.root=elsewhere"])


def test_own_pictures_are_no_setting(empty_folder):
    with pytest.raises(UserError, match="--images mine"):
        config_path(None, ["data.images=mine"])


def test_data_beside_the_scripts_are_named_from_another_folder(empty_folder, monkeypatch):
    monkeypatch.setattr(places, "MAIN_FOLDER", str(empty_folder / "project"))
    fill(empty_folder, "project/Dataset/classes.txt")
    path, why = choose_config()
    assert path.endswith("sample.yaml")
    assert why.endswith(f"set data.root={empty_folder / 'project' / 'Dataset'}")


def test_another_projects_config_is_not_chosen(empty_folder):
    (empty_folder / "configs").mkdir()
    (empty_folder / SAMPLE).write_text("other: 1\n")
    assert config_path(None) == os.path.join(FOLDER, "sample.yaml")


def test_a_named_config_is_taken_whatever_is_there(empty_folder, capsys):
    fill(empty_folder, "Dataset/classes.txt")
    assert config_path("mine.yaml") == "mine.yaml"
    assert capsys.readouterr().err == ""
