"""Byte-pair encoding against what `instant-clip-tokenizer` 0.1.1 made of the same texts."""

import random
import zlib

import pytest

from models.jclip.bpe import BytePairEncoding

WORDS = ("a photo of the cat dog it's they're don't we'll i'm he'd you've 12 3.5 café naïve "
         "straße guinea-pig (red) 50% #1 a/b ... !!! o'clock rock'n'roll 2nd x² ½ ñandú l'été "
         "'tis").split()
# Starts of ranges in which every code point has been given out since Unicode 12.
RANGES = {0x20: 95, 0xA1: 90, 0x100: 128, 0x391: 15, 0x410: 64, 0x5D0: 27, 0x904: 50, 0x4E00: 5000,
          0xAC00: 5000, 0x3041: 80, 0x2190: 100, 0x1F300: 30, 0x1F600: 60}


@pytest.fixture(scope="module")
def encoding():
    return BytePairEncoding()


def texts(kind, n=1000):
    chosen = random.Random(kind)
    for _ in range(n):
        if kind == 0:
            yield " ".join(chosen.choice(WORDS) for _ in range(chosen.randint(1, 15)))
        elif kind == 1:
            length = chosen.randint(1, 60)
            yield "".join(chr(chosen.randint(32, 126)) for _ in range(length)).lower()
        else:
            start = chosen.choice(sorted(RANGES))
            yield "".join(chr(start + chosen.randrange(RANGES[start])) for _ in range(15)).lower()


@pytest.mark.parametrize("kind, checksum", [(0, 3187376722), (1, 3434731121), (2, 3703323679)])
def test_texts_have_the_tokens_that_they_had(encoding, kind, checksum):
    ids = [encoding.encode(text) for text in texts(kind)]
    assert zlib.crc32(repr(ids).encode()) == checksum


def test_the_table_is_clips(encoding):
    assert (encoding.start_of_text, encoding.end_of_text) == (49406, 49407)
    assert encoding.encode("a photo of a cat's tail") == [320, 1125, 539, 320, 2368, 568, 4132]


def test_half_a_surrogate_pair_is_refused(encoding):
    with pytest.raises(UnicodeEncodeError):
        encoding.encode("a \ud800")
