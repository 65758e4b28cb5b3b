"""What people type: options, settings, configs and paths, and what each mistake is told."""

import pytest

from configs.command_line import Parser
from system.errors import UserError


def parser(paths=""):
    made = Parser("A script.")
    made.add_settings(paths)
    made.add_argument("--restart", action="store_true")
    made.add_argument("--stage", type=int, choices=(1, 2))
    made.add_argument("--new-classes")
    made.add_argument("--output")
    return made


def refusal(*words, of=None):
    with pytest.raises(UserError) as error:
        (of or parser()).read(words)
    assert "\n" not in str(error.value) and "usage" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("typed, settings", [
    ("--seed 2", ["seed=2"]), ("--seed=2", ["seed=2"]), ("-seed 2", ["seed=2"]),
    ("--SEED 2", ["seed=2"]), ("--data.shots 8", ["data.shots=8"]), ("--shots 8", ["data.shots=8"]),
    ("--lora-rank 4", ["lora.rank=4"]), ("--lora_rank=4", ["lora.rank=4"]),
    ("--lora.rnak 4", ["lora.rank=4"]), ("--sede 2", ["seed=2"]),
    ("--lora.lr -1", ["lora.lr=-1"]), ("--num-workers 3", ["workers=3"]),
    ("--lr=1e-4", ["prompt.lr=1e-4", "lora.lr=1e-4", "aux.lr=1e-4"]),
    ("--batch-size 4", ["train.batch_size=4", "test.batch_size=4"]),
    ("--prompts.domain", ["prompts.domain=true"]),
    ("--prompts.domain --restart", ["prompts.domain=true"]),
    ("--seed", ["seed=VALUE"]),
    ("--seed 2 --data.shots 8 lora.rank=2", ["seed=2", "data.shots=8"]),
])
def test_a_setting_with_dashes_is_told_how_to_write_it(typed, settings):
    message = refusal(*typed.split())
    for setting in settings:
        assert f" {setting}" in message.replace(",", "")
    assert message.startswith("write ") and typed.split()[0] in message


def test_a_value_with_spaces_is_quoted():
    assert "write 'prompt.init=a photo'" in refusal("--prompt.init", "a photo")


@pytest.mark.parametrize("typed, option", [
    ("--confg x.yaml", "--config"), ("--restrat", "--restart"),
    ("--new_classes x", "--new-classes"), ("--conf x.yaml", "--config"),
    ("--rest", "--restart"), ("--Stage 1", "--stage"), ("--outptu x", "--output"),
    ("--out=x", "--output")])
def test_a_misspelled_option_is_named_with_the_nearest(typed, option):
    assert refusal(*typed.split()).endswith(f"did you mean {option}?")


@pytest.mark.parametrize("typed, words", [
    ("--gpu 0", ["--gpu", "--restart", "key=value"]), ("--stage 3", ["--stage", "3", "1, 2"]),
    ("--stage x", ["--stage", "'x'"]), ("--config", ["--config", "one argument"]),
    ("a.yaml --config b.yaml", ["a.yaml", "b.yaml", "name one"]),
    ("a.yaml b.yml", ["a.yaml", "b.yml", "name one"])])
def test_other_mistakes_are_one_line(typed, words):
    message = refusal(*typed.split())
    for word in words:
        assert word in message


def test_a_tool_of_several_commands_ends_in_one_line_too():
    tool = Parser("A tool.")
    tool.add_subparsers(dest="command", required=True).add_parser("info").add_argument("path")
    for words in ([], ["inf"], ["info"], ["info", "x", "--acitvation"]):
        with pytest.raises(UserError) as error:
            tool.parse_args(words)
        assert "\n" not in str(error.value)


def test_a_script_without_settings_knows_its_options_alone():
    plain = Parser("A tool.")
    plain.add_argument("--sheet")
    assert "--seed" in refusal("--seed", "2", of=plain)
    assert "--sheet?" in refusal("--sheets", "x", of=plain)


@pytest.mark.parametrize("words, config, overrides, paths", [
    ([], None, [], []),
    (["configs/photos.yaml"], "configs/photos.yaml", [], []),
    (["a=1", "x.yml", "b=2"], "x.yml", ["a=1", "b=2"], []),
    (["--config", "x", "seed=2"], "x", ["seed=2"], []),
    (["output.cache_dir=x.yaml"], None, ["output.cache_dir=x.yaml"], []),
    (["cat.jpg", "seed=2", "a=b.jpg"], None, ["seed=2", "a=b.jpg"], ["cat.jpg"]),
    (["there=1.jpg", "c.yaml"], "c.yaml", [], ["there=1.jpg"]),
])
def test_words_are_told_apart(tmp_path, monkeypatch, words, config, overrides, paths):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there=1.jpg").write_bytes(b"")
    read = parser("IMAGE …" if paths else "").read(words)
    assert (read.config, read.overrides, read.paths) == (config, overrides, paths)


def test_a_config_may_lie_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parser().read(["--config=~/x.yaml"]).config == "/home/somebody/x.yaml"
