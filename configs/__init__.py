"""Configuration: `default.yaml` < a file of differences < `key=value` on the command line."""

import collections
import copy
import difflib
import math
import os

import yaml

from configs.keys import alternatives, similar_keys
from system.errors import UserError
from system.places import beside_scripts, home
from system.untrusted import DEEPEST, leaves_folder, odd_character, same_value, shown

FOLDER = os.path.dirname(os.path.abspath(__file__))
_DEFAULTS = os.path.join(FOLDER, "default.yaml")
COMPETITION, SAMPLE = "configs/competition.yaml", "configs/sample.yaml"
OWN_RUNS = os.path.join("test_pkl", "own")  # a folder for each of the own data sets

_COMMAND_LINE = "command line"
# Keys that take something else than what their default is: an example of it.
_OR_A_LIST = {"lora.positions": [0]}
_OR_NULL = {"data.labels": "labels.txt", "data.shots_file": "shots.txt", "data.images": "pictures",
            "data.new_classes": "names.txt", "data.split": "split.json", "data.domain": "Animal",
            "data.domains": True, "prompts.max_tokens": 77, "aux.weights": "r-50-1000ep.pth.tar",
            "clip.activation": "quick_gelu", "workers": 2,
            "lora.init": "lora_weights.pkl", "output.shipped_dir": "test_pkl/sample"}
# Paths in data.root, which a config file may not lead out of it. (The command line is the
# user's own.)
_IN_ROOT = {"data.classes", "data.train_list", "data.test_dir", "data.labels", "data.split",
            "data.split_images"}
# All paths: `~` in them is a home folder, and the command line takes them as they are.
PATHS = {*_IN_ROOT, "data.root", "data.shots_file", "data.images", "data.new_classes",
         "clip.weights", "aux.weights", "lora.init", "prompts.dir", "output.checkpoint_dir",
         "output.cache_dir", "output.shipped_dir"}
# Numbers that must be at least 1; all others must be at least 0.
_AT_LEAST_ONE = {
    "data.shots", "prompts.max_tokens", "prompt.queue_length", "prompt.queue_every", "lora.rank",
    "train.epochs", "train.batch_size", "train.class_batch_size", "head.epochs", "head.views",
    "mta.views", "mta.zero_shot_views", "test.batch_size", "aux.views", "aux.epochs"}
_NOT_ZERO = {"mta.lambda_y"}  # a divisor
_AT_MOST = {"seed": 2 ** 32 - 1, "train.scale": 1, "mta.scale": 1, "mta.nearest": 1,
            "prompt.queue_weight": 1, "ood.recall": 1, "ood.negative_share": 1,
            "aux.merged_share": 1}


class Config:
    """Settings as attributes: `config.lora.rank`; `to_dict()` gives the plain dict."""

    def __init__(self, values):
        self._values = values

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"no config key {name!r}")
        value = self._values[name]
        return Config(value) if isinstance(value, dict) else value

    def to_dict(self):
        return self._values


def load_config(path=None, overrides=(), *changes):
    """The merged settings.

    Args:
        path: YAML file of differences from `configs/default.yaml`, in the working folder or
            beside the scripts, or None.
        overrides: strings 'section.key=value', the value in YAML, or a path as it is.
        changes: nested dicts of settings that count more than the file's and less than the
            overrides; the last most.

    Raises:
        UserError: no such file, bad YAML, an unknown key (the nearest known one is named), a
            value of another type than the default's or out of its range, or a path in a file
            that leads out of data.root.
    """
    defaults = _read_yaml(_DEFAULTS)
    values = copy.deepcopy(defaults)
    if path is not None:
        path = beside_scripts(home(path))
        _merge(values, _read_yaml(path), defaults, path)
    for each in changes:
        _merge(values, each, defaults, "saved settings")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"{shown(override)} is not of the form key=value{_meant(override)}")
        key = key.strip()
        value = _value_of(key, text, override)
        for part in reversed(key.split(".")):
            value = {part: value}
        _merge(values, value, defaults, _COMMAND_LINE)
    return Config(values)


def own_pictures_config(images, new_classes=None, path=None, overrides=()):
    """The settings to train on own pictures with: all defaults, or a file's.

    Args:
        images: folder or CSV, after whose name the folders of weights and features are named.
        new_classes: file of names, or None.
        path, overrides: see `load_config`.
    """
    name = os.path.basename(os.path.abspath(images))
    if not os.path.isdir(images):
        name = os.path.splitext(name)[0]
    new = {} if new_classes is None else {"new_classes": new_classes}
    return load_config(path, overrides, {
        "data": {"images": images, **new},
        "output": {"checkpoint_dir": os.path.join(OWN_RUNS, name), "shipped_dir": None,
                   "cache_dir": os.path.join("cache", "own", name)}})


def format_config(config):
    """The settings as YAML text."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)


def differences(saved, current, keys):
    """'key: saved value, current value' for each setting that differs.

    Args:
        saved: settings as `Config.to_dict()` gives them, or whatever a file holds.
        current: settings as `Config.to_dict()` gives them.
        keys: the sections or single settings ('data.shots') to compare.
    """
    found = []

    def walk(a, b, name):
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(set(a) | set(b)):
                walk(a.get(key), b.get(key), f"{name}.{key}")
        elif not same_value(a, b):
            found.append(f"{name}: {shown(a)} when trained, {shown(b)} now")

    for name in keys:
        a, b = saved, current
        for part in name.split("."):
            a, b = (side.get(part) if isinstance(side, dict) else None for side in (a, b))
        walk(a, b, name)
    return found


class _Loader(yaml.SafeLoader):
    """Plain values, each key once, and no aliases: ten lines of them can stand for 10^9 values."""

    depth = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it has the alias {shown(self.peek_event().anchor)}; write "
                                 "the value itself")
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = collections.Counter(str(key.value) for key, _ in node.value)
            raise yaml.YAMLError(f"{shown(keys.most_common(1)[0][0])} is set twice")
        return mapping


def _read_yaml(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            values = yaml.load(file, _Loader)
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}"
                        f"{_config_like(path)}") from error
    except Exception as error:  # YAML's own, not UTF-8, and any that a tag like !!int raises
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} is not valid: it must be a list of 'key: value' lines")
    return values


def _value_of(key, text, override):
    """The value that an override's text stands for."""
    text = text.strip()
    empty = ("", "null", "~") if key in _OR_NULL else ("", "null")
    if key in PATHS and text not in empty and text[0] not in "\"'":
        return text  # YAML would take 2750 for a number, and cut off what follows ' #'
    try:
        return yaml.load(text, _Loader)
    except Exception:  # see `_read_yaml`
        raise UserError(f"{shown(override)}: the value is not YAML") from None


def _meant(word):
    """What a word of the command line that is no setting may have been meant for."""
    named, _ = similar_keys(word, all_keys())
    if named:
        return f"; write {alternatives([f'{key}=VALUE' for key in named])}, without spaces"
    if os.path.exists(word):
        return f"; own pictures are named with --images {word}"
    return _config_like(word)


def _config_like(path):
    """'; did you mean …?' where a file of this folder has a name like a path's."""
    name = os.path.splitext(os.path.basename(path))[0]
    stems = [os.path.splitext(file)[0] for file in sorted(os.listdir(FOLDER))
             if file.endswith(".yaml")]
    near = difflib.get_close_matches(name, stems, n=1, cutoff=0.8)
    return f"; did you mean --config configs/{near[0]}.yaml?" if near else ""


def all_keys():
    """Every setting, as 'lora.rank', in the order of `default.yaml`."""
    return [f"{section}.{key}" if key else section
            for section, values in _read_yaml(_DEFAULTS).items()
            for key in (values if isinstance(values, dict) else [""])]


def _merge(values, changes, defaults, source, prefix=""):
    for key, value in changes.items():
        name = f"{prefix}{str(key)[:80]}"
        if key not in defaults:
            _refuse_key(name, value, source)
        default = defaults[key]
        if not isinstance(default, dict):
            values[key] = _checked(name, value, default, source)
        elif isinstance(value, dict):
            _merge(values[key], value, default, source, f"{name}.")
        else:
            raise UserError(f"{source}: {name} is a section; set one of its keys: "
                            f"{', '.join(f'{name}.{k}' for k in default)}")


def _refuse_key(name, value, source):
    while isinstance(value, dict) and value:  # 'laro: {rank: 2}' is laro.rank
        key, value = next(iter(value.items()))
        name += f".{str(key)[:80]}"
    keys = all_keys()
    named, alike = similar_keys(name, keys)
    if name in keys:  # a file's 'lora.rank: 2'
        section, _, key = name.partition(".")
        hint = f"in a file write '{section}: {{{key}: …}}'"
    elif named or alike:
        hint = f"did you mean {alternatives(named or alike)}?"
    else:
        hint = "configs/default.yaml has them all"
    raise UserError(f"{source}: unknown config key {name!r}; {hint}")


def _checked(name, value, default, source):
    """The value, if its type is the default's (or what else the key takes) and it is in range."""
    if name in _OR_NULL:
        if value is None:
            return None
        default = _OR_NULL[name]
    elif name in _OR_A_LIST and isinstance(value, list):
        default = _OR_A_LIST[name]
    if isinstance(default, float) and type(value) in (str, int):
        try:  # YAML reads 1 as int and 2e-4 (without a point) as text
            value = float(value)
        except (ValueError, OverflowError):
            pass
    if type(value) is not type(default) or isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{source}: {name} must be a {type(default).__name__} like "
                        f"{default!r}, not {shown(value)}")
    if isinstance(value, list):
        return _checked_items(name, value, default, source)
    if isinstance(value, str):
        if name in PATHS:
            value = home(value)
        _check_text(name, value, source)
    elif not isinstance(value, bool):
        _check_range(name, value, source)
    return value


def _checked_items(name, value, default, source):
    if not value:
        raise UserError(f"{source}: {name} must not be empty")
    if isinstance(default[0], float) and len(value) != len(default):
        raise UserError(f"{source}: {name} must have {len(default)} numbers like {default}")
    return [_checked(f"{name}[{i}]", item, default[0], source) for i, item in enumerate(value)]


def _check_text(name, value, source):
    odd = odd_character(value)
    if odd:
        raise UserError(f"{source}: {name} has the character {ascii(odd)}; remove it")
    if name in PATHS and not value.strip():
        raise UserError(f"{source}: {name} is empty; write a path")
    if name in _IN_ROOT and source != _COMMAND_LINE and leaves_folder(value):
        raise UserError(f"{source}: {name} is {shown(value)}, which leaves data.root; move the "
                        "file there, or set data.root")


def _check_range(name, value, source):
    key = name.partition("[")[0]
    least, most = int(key in _AT_LEAST_ONE), _AT_MOST.get(key, math.inf)
    if value < least:
        raise UserError(f"{source}: {name} is {shown(value)}; it must be at least {least}")
    if value == 0 and key in _NOT_ZERO:
        raise UserError(f"{source}: {name} is {shown(value)}; it must be more than 0")
    if value > most:
        raise UserError(f"{source}: {name} is {shown(value)}; it must be at most {most}")
