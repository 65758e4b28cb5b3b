"""The scripts' command lines: options, a config, settings `key=value`, and paths."""

import argparse
import difflib
import os
import shlex
import sys

from configs import all_keys, load_config
from configs.keys import alternatives, plain, similar_keys
from system.errors import UserError
from system.places import home


class Parser(argparse.ArgumentParser):
    """Python's parser, whose errors are `UserError`s of one line.

    Options are written whole: a shortened one could be `--restart`, and cost hours of work.
    """

    def __init__(self, description=None, prog=None):
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self._takes_settings = False

    def error(self, message):
        raise UserError(f"{message}; --help tells how it is used")

    def add_settings(self, paths=""):
        """Take `--config FILE` and words, which `read` tells apart.

        Args:
            paths: how the help names those that are paths, such as 'IMAGE …'; '' takes none.
        """
        self._takes_settings, self._takes_paths = True, bool(paths)
        self.add_argument("--config", type=home, metavar="FILE",
                          help="YAML file of settings; by default what is here decides")
        self.add_argument("words", nargs="*", metavar=f"{paths} key=value".strip(),
                          help=f"{paths and 'paths, and '}settings of configs/default.yaml")

    def read(self, words=None):
        """The arguments; with settings also `config`, `overrides`: list, and `paths`: list.

        Args:
            words: of the command line; by default the process's.

        Raises:
            UserError: an option that there is not, two configs, or what `argparse` refuses.
        """
        words = sys.argv[1:] if words is None else list(words)
        arguments, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            unknown = [word for word in unknown if word.startswith("-")] or unknown
            raise UserError("; ".join(self._explained(word, words) for word in unknown))
        if self._takes_settings:
            configs = [arguments.config] if arguments.config is not None else []
            arguments.overrides, arguments.paths = [], []
            for word in arguments.words:
                is_path = "=" not in word or os.path.exists(word)
                if is_path and word.endswith((".yaml", ".yml")):
                    configs.append(word)
                elif is_path and self._takes_paths:
                    arguments.paths.append(word)
                else:
                    arguments.overrides.append(word)
            if len(configs) > 1:
                raise UserError(f"two configs, {alternatives(configs)}; name one")
            arguments.config = configs[0] if configs else None
        return arguments

    def _explained(self, word, words):
        """What an unknown word of the command line may have been meant for."""
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            return f"{word!r} is one word too many"
        if not equals:
            following = words[words.index(word) + 1:][:1]
            value = "VALUE" if not following or following[0].startswith("--") else following[0]
            word = f"{word} {value}" if following[:1] == [value] else word
        options = {plain(option): option for option in self._option_string_actions
                   if option.startswith("--")}
        wanted = plain(name)
        named, alike = similar_keys(name.strip("-"), all_keys()) if self._takes_settings else (
            [], [])
        meant = [options[option] for option in options if option.startswith(wanted)]
        if not meant and not named:
            meant = [options[near] for near in difflib.get_close_matches(
                wanted, options, n=1, cutoff=0.7)]
        if meant:
            return f"there is no option {name}; did you mean {alternatives(meant)}?"
        keys = named or alike
        if keys:
            settings = [shlex.quote(f"{key}={_value(key, value)}") for key in keys]
            return f"write {alternatives(settings)} in the place of {word}"
        return (f"there is no option {name}; there are {', '.join(sorted(options.values()))}"
                + ", and settings key=value (configs/default.yaml)" * self._takes_settings)


def _value(key, value):
    """The value to write for a key: what was given, or for a switch `true`."""
    if value != "VALUE":
        return value
    section = load_config().to_dict()
    for part in key.split("."):
        section = section[part]
    return "true" if isinstance(section, bool) else value
