"""Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) with the merges of OpenAI's CLIP.

`merges.txt.gz` holds the first 48,894 merges of OpenAI's bpe_simple_vocab_16e6.txt.gz, those that
CLIP uses (MIT licence, in merges.LICENSE). A text's bytes are written as printable characters, the
last of a word with `</w>`, and pairs are joined in the order of the list.

Ours: what is a letter or a digit is Python's Unicode that decides, so a text with characters that
Unicode gave out after OpenAI's library was made may be cut otherwise.
"""

import functools
import gzip
import os
import re
import unicodedata

_MERGES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "merges.txt.gz")
_CONTRACTION = re.compile("'s|'t|'re|'ve|'m|'ll|'d")
_LAST = "</w>"
_SEPARATORS = "\x1c\x1d\x1e\x1f"  # Python counts these as white space, Unicode does not


class BytePairEncoding:
    """Words to the numbers of their tokens.

    The 256 bytes come first, then the 256 that end a word, then the merges, then the start and the
    end of a text: 49,408 in all.

    Attributes:
        start_of_text, end_of_text: numbers of the two tokens that no text is encoded to.
    """

    def __init__(self):
        with gzip.open(_MERGES, "rt", encoding="utf-8") as file:
            merges = [tuple(line.split()) for line in file]
        self._rank = {pair: i for i, pair in enumerate(merges)}
        self._bytes = _printable_bytes()
        single = list(self._bytes.values())
        tokens = [*single, *(token + _LAST for token in single), *map("".join, merges)]
        self._ids = {token: i for i, token in enumerate(tokens)}
        self.start_of_text, self.end_of_text = len(tokens), len(tokens) + 1
        self._word_ids = functools.lru_cache(maxsize=2 ** 16)(self._merged)

    def encode(self, text):
        """The token numbers of a text in lower case: list of int.

        Raises:
            UnicodeEncodeError: it has half a surrogate pair.
        """
        text.encode()
        return [i for word in _words(text) for i in self._word_ids(word)]

    def _merged(self, word):
        parts = [self._bytes[byte] for byte in word.encode()]
        parts[-1] += _LAST
        while len(parts) > 1:
            pairs = zip(parts, parts[1:])
            first = min(pairs, key=lambda pair: self._rank.get(pair, len(self._ids)))
            if first not in self._rank:
                break
            joined, i = [], 0
            while i < len(parts):
                n = 2 if tuple(parts[i:i + 2]) == first else 1
                joined.append("".join(parts[i:i + n]))
                i += n
            parts = joined
        return [self._ids[part] for part in parts]


def _words(text):
    """Contractions, runs of letters, single digits, and runs of other visible characters."""
    kinds = [_kind(character) for character in text]
    start = 0
    while start < len(text):
        contraction = _CONTRACTION.match(text, start)
        if contraction:
            end = contraction.end()
        else:
            end = start + 1
            while kinds[start] in "LP" and end < len(text) and kinds[end] == kinds[start]:
                end += 1
        if kinds[start] != "Z":
            yield text[start:end]
        start = end


@functools.lru_cache(maxsize=2 ** 16)
def _kind(character):
    """L of a letter, N of a digit, Z of white space, P of anything else."""
    category = unicodedata.category(character)[0]
    if category in "LN":
        return category
    return "Z" if character.isspace() and character not in _SEPARATORS else "P"


def _printable_bytes():
    """{byte: a printable character}, in the order of their tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable},
            **{byte: chr(256 + i) for i, byte in enumerate(others)}}
