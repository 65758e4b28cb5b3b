"""The merged config: every file of the repository, overrides, and what is refused."""

import glob
import os

import pytest
import yaml

import configs
from configs import COMPETITION, SAMPLE, differences, format_config, load_config
from configs.choice import config_path
from models.errors import UserError

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
    ("ood.threshold=0.4", "ood", "threshold", 0.4),
    ("ood.threshold=null", "ood", "threshold", None),
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


@pytest.mark.parametrize("override, unknown, nearest", [
    ("lora.rnak=4", "lora.rnak", "lora.rank"),
    ("laro.rank=4", "laro", "lora"),
    ("promts.dir=x", "promts", "prompts"),
    ("data.train_lst=x", "data.train_lst", "data.train_list"),
    ("Seed=1", "Seed", "seed"),
])
def test_an_unknown_key_is_named_with_the_nearest(override, unknown, nearest):
    message = refusal(None, [override])
    assert f"unknown config key '{unknown}'" in message
    assert message.endswith(f"did you mean {nearest}?")
    assert "command line" in message


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
    ("head.channel_reweighting=1", "head.channel_reweighting must be a bool like True, not 1"),
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


def test_positions_may_be_block_numbers():
    assert load_config(None, ["lora.positions=[0, 11]"]).lora.positions == [0, 11]


def test_a_date_that_does_not_exist_is_refused(config_file):
    refusal(None, ["output.cache_dir=2024-13-45"])
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
            path.parent.mkdir(exist_ok=True)
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


def test_a_named_config_is_taken_whatever_is_there(empty_folder, capsys):
    fill(empty_folder, "Dataset/classes.txt")
    assert config_path("mine.yaml") == "mine.yaml"
    assert capsys.readouterr().err == ""
