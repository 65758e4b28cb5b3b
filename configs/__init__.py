"""Configuration: `default.yaml` < a file of differences < `key=value` on the command line."""

import difflib
import os
import sys

import yaml

from models.errors import UserError

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_DEFAULTS = os.path.join(_FOLDER, "default.yaml")
COMPETITION, SAMPLE = "configs/competition.yaml", "configs/sample.yaml"
OWN_RUNS = os.path.join("test_pkl", "own")  # a folder for each of the own data sets

# Keys that take a list as well as what their default is.
_OR_A_LIST = {"lora.positions"}
# Numbers that must be at least 1; all others at least 0.
_AT_LEAST_ONE = {
    "data.shots", "prompt.queue_length", "prompt.queue_every", "lora.rank", "train.epochs",
    "train.batch_size", "head.epochs", "head.views", "mta.views",
    "mta.zero_shot_views", "test.batch_size"}


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


def load_config(path=None, overrides=(), changes=None):
    """The merged settings.

    Args:
        path: YAML file of differences from `configs/default.yaml`, or None.
        overrides: strings 'section.key=value', the value in YAML.
        changes: nested dict of settings that count more than the file's and less than the
            overrides, or None.

    Raises:
        UserError: no such file, bad YAML, an unknown key (the nearest known one is named), or
            a value of another type than the default's or out of its range.
    """
    values = _read_yaml(_DEFAULTS)
    if path is not None:
        _merge(values, _read_yaml(path), path)
    _merge(values, changes or {}, "saved settings")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"{override!r} is not of the form key=value")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise UserError(f"{override!r}: the value is not YAML") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        _merge(values, value, "command line")
    return Config(values)


def own_pictures_config(images, new_classes=None, path=None, overrides=()):
    """The settings to train on own pictures with: all defaults, or a file's.

    Args:
        images: folder or CSV, after whose name the folders of weights and features are named.
        new_classes: file of names, or None.
        path, overrides: see `load_config`.
    """
    name = os.path.splitext(os.path.basename(os.path.abspath(images)))[0]
    return load_config(path, overrides, {
        "data": {"images": images, "new_classes": new_classes},
        "output": {"checkpoint_dir": os.path.join(OWN_RUNS, name),
                   "cache_dir": os.path.join("cache", "own", name)}})


def config_path(named):
    """The config file that `--config` names, else `choose_config`'s, which is said on stderr."""
    if named is not None:
        return named
    path, why = choose_config()
    print(f"{path}: {why}", file=sys.stderr, flush=True)
    return path


def choose_config():
    """The config for a user who names none: the challenge's if its files are there.

    Returns:
        (path, why): the config file, and a text for people.

    Raises:
        UserError: some of the challenge's data is there, and some of its files are not.
    """
    competition = load_config(os.path.join(_FOLDER, os.path.basename(COMPETITION)))
    root, weights = competition.data.root, competition.clip.weights
    if not os.path.isdir(root) or not os.listdir(root):
        return SAMPLE, f"the sample set, as there is no data in {root}/"
    needed = [weights, *(os.path.join(root, name) for name in (
        competition.data.classes, competition.data.train_list, "TrainSet",
        competition.data.test_dir))]
    missing = [path for path in needed if not os.path.exists(path)]
    if missing:
        raise UserError(f"{root}/ is there, but {', '.join(missing)} missing; put the missing "
                        f"files there, or name a config: --config {SAMPLE}")
    return COMPETITION, f"{root}/ and {weights} are in place"


def format_config(config):
    """The settings as YAML text."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)


def differences(saved, current, keys):
    """'key: saved value, current value' for each setting that differs.

    Args:
        saved, current: settings as `Config.to_dict()` gives them.
        keys: the sections or single settings ('data.shots') to compare.
    """
    found = []

    def walk(a, b, name):
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(set(a) | set(b)):
                walk(a.get(key), b.get(key), f"{name}.{key}")
        elif a != b:
            found.append(f"{name}: {a!r} when trained, {b!r} now")

    for name in keys:
        a, b = saved, current
        for part in name.split("."):
            a, b = a.get(part), b.get(part)
        walk(a, b, name)
    return found


def _read_yaml(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            values = yaml.safe_load(file)
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a bad date
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} is not valid: it must be a list of 'key: value' lines")
    return values


def _merge(values, changes, source, prefix=""):
    for key, value in changes.items():
        name = f"{prefix}{key}"
        if key not in values:
            near = difflib.get_close_matches(str(key), list(values), n=1, cutoff=0)
            raise UserError(f"{source}: unknown config key {name!r}; "
                            f"did you mean {prefix}{near[0]}?")
        default = values[key]
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {name} is a section; set one of its keys: "
                                f"{', '.join(f'{name}.{k}' for k in default)}")
            _merge(default, value, source, f"{name}.")
        else:
            values[key] = _checked(name, value, default, source)


def _checked(name, value, default, source):
    """The value, if its type is the default's; a key whose default is null takes any."""
    if default is None or name in _OR_A_LIST and isinstance(value, list):
        return value
    if isinstance(default, float) and not isinstance(value, (bool, list, dict, type(None))):
        try:  # YAML reads 1 as int and 2e-4 (without a point) as text
            value = float(value)
        except (ValueError, TypeError):
            pass
    if type(value) is not type(default) or value != value:
        raise UserError(f"{source}: {name} must be a {type(default).__name__} like "
                        f"{default!r}, not {value!r}")
    smallest = int(name in _AT_LEAST_ONE)
    if isinstance(value, (int, float)) and value < smallest:
        raise UserError(f"{source}: {name} is {value}; it must be at least {smallest}")
    if isinstance(default, list):
        if isinstance(default[0], float) and len(value) != len(default):
            raise UserError(f"{source}: {name} must have {len(default)} numbers like {default}")
        return [_checked(f"{name}[{i}]", v, default[0], source) for i, v in enumerate(value)]
    return value
