"""Bad and odd inputs, made anew by each test run; every case says what is documented to happen.

A case is handled, and then says what the reader returns and perhaps a warning, or refused in
one line. Warning and line name the file.
"""

import os
import re
import warnings
from typing import Any, Callable, NamedTuple, Optional, Union

from system.errors import UserError


class Case(NamedTuple):
    """One input.

    Attributes:
        name: what is odd about it; no two of a kind have the same.
        content: the file as bytes or text, or a function that makes the given path.
        result: what its reader returns. warning: words of the one warning.
        refused: words of the error, a pattern; None where the case is handled.
    """

    name: str
    content: Union[bytes, str, Callable]
    result: Any = None
    warning: Optional[str] = None
    refused: Optional[str] = None

    def write(self, path):
        if callable(self.content):
            self.content(path)
        else:
            text = self.content
            path.write_bytes(text.encode() if isinstance(text, str) else text)


def refused(words, contents):
    """Cases, {name: content}, that are refused with the same words."""
    return [Case(name, content, refused=words) for name, content in contents.items()]


def handled(result, contents):
    """Cases, {name: content}, that give the same result."""
    return [Case(name, content, result) for name, content in contents.items()]


def equal(result, expected):
    assert result == expected


def check(case, path, read, same=equal):
    """Read a case and hold what happens against what it says.

    Args:
        path: where to write it, `pathlib.Path`.
        read: function of the path as text.
        same: asserts that a result equals the case's.
    """
    case.write(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as in the scripts
        try:
            result = read(str(path))
        except UserError as error:
            message = str(error)
            assert case.refused is not None, message
            assert re.search(case.refused, message), message
            assert os.path.basename(path) in message
            assert len(message.splitlines()) == 1 and len(message) < 800, message
            return
    assert case.refused is None, result
    same(result, case.result)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (case.warning is not None), messages
    for message in messages:
        assert re.search(case.warning, message) and str(path) in message, message


def folder(path):
    path.mkdir()


def dangling_link(path):
    path.symlink_to("nowhere")


def link_to_itself(path):
    path.symlink_to(path.name)


def no_file(path):
    pass


# What may lie in the place of any file; and bytes that are of some other kind.
NO_FILES = {"a folder": folder, "a dangling link": dangling_link,
            "a link to itself": link_to_itself, "no file": no_file}
OTHER_FORMATS = {
    "a web page": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
    "a zip archive": b"PK\3\4\x14\0\0\0\x08\0\xd3\xc4", "gzip": b"\x1f\x8b\x08\0\xd0\x92\xff",
    "a program": b"\x7fELF\2\1\1" + bytes(40), "noise": bytes(range(255, -1, -1)),
    "zeros": bytes(500)}
