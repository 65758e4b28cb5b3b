"""Which settings a user may have meant by a name that is none."""

import difflib
import re

_LONGEST = 80  # letters of a name that are looked at


def similar_keys(name, keys):
    """The settings that a name may stand for.

    Args:
        name: as a user wrote it, of any case and with any of `-_.` between its words: 'rank',
            'LORA.RANK', 'lora-rnak'.
        keys: list of all settings, 'seed', 'lora.rank', …

    Returns:
        (named, alike): lists, of which one at least is empty. `named` are those of which the name
        is the whole key, the last part ('weights': clip.weights and aux.weights) or the section;
        else `alike` are those for which it may be misspelled.
    """
    name = str(name)[:_LONGEST]
    whole, last = plain(name), plain(name.rpartition(".")[2])
    ways = [(plain, whole), (lambda key: plain(key.rpartition(".")[2]), last),
            (lambda key: key.partition(".")[0], whole)]
    if not whole:
        return [], []
    for part_of, wanted in ways:
        named = [key for key in keys if part_of(key) == wanted]
        if named:
            return sorted(named, key=lambda key: -_likeness(plain(key), whole)
                          if "." in name else 0), []
    found = []
    for part_of, wanted in ways[:1] if "." in name else ways:
        for near in difflib.get_close_matches(wanted, set(map(part_of, keys)), n=1):
            found.append((_likeness(near, wanted), [key for key in keys if part_of(key) == near]))
    return [], max(found, default=(0, []))[1]


def plain(name):
    """A name in lower case and without what divides its words."""
    return re.sub("[-_. ]", "", name.lower())


def alternatives(words):
    """'a', 'a or b', 'a, b or c'."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _likeness(a, b):
    return difflib.SequenceMatcher(None, a, b).ratio()
