"""Class names as people have them: with a domain or without, numbered, or not in words."""

import collections
import re
import warnings

from system.untrusted import shown

# What only sorts the names: '001.' of CUB's folders, a WordNet id before the words.
_NUMBER = re.compile(r"(?:[0-9]+\.|n[0-9]{8}[-_. ])\s*(?=[^\W\d_])")
_WRITE_NAMES = ("CLIP knows classes by English words: rename them, or give each a 'name' in a "
                "JSON file of prompts (see prompts/__init__.py)")


def without_numbers(names, where):
    """Names without the numbers that only sort them, '001.Laysan_Albatross'; a warning tells it.

    Args:
        names: list of texts. where: the file or folder that has them, for the warning.

    Returns:
        list; as it was if some would be alike.
    """
    shorter = [name[found.end():] if found else name
               for name, found in zip(names, map(_NUMBER.match, names))]
    if shorter == names or len({name.casefold() for name in shorter}) < len(
            {name.casefold() for name in names}):
        return names
    changed = [(old, new) for old, new in zip(names, shorter) if old != new]
    warnings.warn(f"{where}: {len(changed)} class names are taken without the number before them: "
                  f"{shown(changed[0][0])} is {shown(changed[0][1])}", stacklevel=2)
    return shorter


def domains_of(prefixes, known_domains):
    """The prefixes of a class list that are domains, and not a name's first word.

    One that is known is. An unknown one is only if several classes share it and the list
    evidently has domains: every class has a prefix that is known or shared, or most have a known
    one. So 'hot' of 'hot_dog' and 'hot_pot' is none beside 'polar_bear' and 'pizza'.

    Args:
        prefixes: list, a class's lower-case text before the underscore, None without one.
        known_domains: lower-case names.

    Returns:
        set of prefixes.
    """
    counts = collections.Counter(prefixes)
    known = {prefix for prefix in counts if prefix in known_domains or prefix == ""}
    shared = {prefix for prefix, n in counts.items() if n > 1 and prefix is not None}
    n_known = sum(counts[prefix] for prefix in known)
    evident = set(counts) <= known | shared or 2 * n_known > len(prefixes)
    return known | shared if evident else known


def tell_reading(path, texts, prefixes, domains, known_domains):
    """Warn how a class list is taken, where it could be taken otherwise.

    Args:
        path: the list. texts: its names. prefixes, known_domains: see `domains_of`, which has
            found `domains`.
    """
    whole = [text for text, prefix in zip(texts, prefixes) if prefix not in domains]
    kept = [text for text in whole if "_" in text]
    cut = {text.partition("_")[0]: None for text, prefix in zip(texts, prefixes)
           if prefix and prefix in domains and (whole or prefix not in known_domains)}
    told = []
    if kept:
        told.append(f"{len(kept)} names are kept whole, such as "
                    f"{shown(kept[0].replace('_', ' '))}")
    if cut:
        told.append(f"what is before the underscore ({', '.join(map(shown, list(cut)[:3]))}"
                    f"{', …' * (len(cut) > 3)}) is taken as the domain")
    if told:
        warnings.warn(f"{path}: {', and '.join(told)}; data.domains=true takes what is before "
                      "each first underscore for one, data.domains=false nothing", stacklevel=3)


def warn_of_names(names, where):
    """Warn of class names that tell CLIP nothing, one line for each kind.

    Args:
        names: list of texts, as captions name the classes. where: the data, for the warning.
    """
    numbered = [re.match(r"\d+\W", name) for name in names]
    kinds = [
        ("numbers", r"(?:class|label|category|cls|id)[\W_]*\d+|c?\d+"),
        ("WordNet ids", r"n\d{8}"),
        ("without a Latin letter", r"(?=.*[^\W\d_])[^A-Za-zÀ-ɏ]+")]
    for kind, pattern in kinds:
        found = [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE | re.DOTALL)]
        if found:
            warnings.warn(f"{where}: {len(found)} class names are {kind}, such as "
                          f"{shown(found[0])}; {_WRITE_NAMES}", stacklevel=3)
    if all(numbered) and len({found[0] for found in numbered}) == len(names) > 1:
        warnings.warn(f"{where}: all class names begin with a number, such as {shown(names[0])}, "
                      f"which the texts will hold; {_WRITE_NAMES}", stacklevel=3)
