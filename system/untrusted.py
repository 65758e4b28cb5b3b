"""Looks at texts, values and paths that come from users' files, before they are believed."""

import json
import os
import re
import reprlib
import unicodedata

from system.errors import UserError

DEEPEST = 20  # containers in each other; Jittor lifts Python's own limit, so the stack would go
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]')  # JSON's texts, and its brackets
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


def shown(value):
    """`repr` for a message: on one line and never long, however large the value is."""
    try:
        return _SHORT.repr(value).replace("\n", "")  # an array's has line breaks
    except ValueError:  # an int of more digits than Python turns into text
        return "a very long number"


def odd_character(text):
    """The first control character, lone surrogate or byte-order mark of a text; None without.

    They do not show, and make a name another one than it looks like: a NUL is what UTF-16
    leaves, a byte-order mark inside a text what joining two files leaves.
    """
    if text.isprintable():
        return None
    return next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") or c == "\ufeff"),
                None)


def same_value(value, expected):
    """Whether a value of any kind is of the type and content of a plain one (or of lists)."""
    if type(value) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(value) == len(expected) and all(map(same_value, value, expected))
    return value == expected


def leaves_folder(path):
    """Whether a path, taken from a folder, may lead out of it; links are not looked at.

    A link on the disk was put there by who owns the disk; what a list or a config says may come
    from anywhere.
    """
    return os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir


def read_text(path, cure):
    """A UTF-8 text, whose lines end in LF, CRLF or CR.

    Raises:
        UserError: no such file, or another encoding; it ends in `cure`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {cure}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from error


def read_lines(path, cure):
    """The lines of `read_text`."""
    return read_text(path, cure).split("\n")


def read_json(path, object_pairs_hook=None):
    """The content of a JSON file in UTF-8.

    Raises:
        OSError: no such file.
        ValueError: another encoding, no JSON, or containers more than `DEEPEST` in each other.
    """
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    depth = 0
    for token in _NESTING.findall(text):
        depth += (token in "[{") - (token in "]}")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    return json.loads(text, object_pairs_hook=object_pairs_hook)
