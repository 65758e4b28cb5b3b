"""Texts as CLIP's tokens: OpenAI's cleaning, then byte-pair encoding."""

import functools
import html
import re

import ftfy
import numpy as np

from models.jclip.bpe import BytePairEncoding

START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)")
_WHITE_SPACE = re.compile(r"\s+")

_encoding = functools.lru_cache(maxsize=1)(BytePairEncoding)  # read when it is first needed


def clean(text):
    """OpenAI's cleaning: repaired Unicode, HTML entities resolved twice, lower case, one space."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _WHITE_SPACE.sub(" ", text).strip().lower()


def encode(text):
    """The token ids of a text, without start and end: list of int."""
    encoding = _encoding()
    special = {START_OF_TEXT: encoding.start_of_text, END_OF_TEXT: encoding.end_of_text}
    ids = []
    for part in _SPECIAL.split(clean(text)):
        ids += [special[part]] if part in special else encoding.encode(part)
    return ids


def tokenize(texts, context_length=77, truncate=False):
    """Texts as CLIP's text encoder takes them.

    Args:
        texts: one text or a list of N texts.
        context_length: positions a row.
        truncate: cut a text that is too long instead of raising; its last token is then
            end-of-text.

    Returns:
        int32 array (N, context_length), zero after the end-of-text token. OpenAI's code
        returns a tensor; `encode_text` takes either an array or a Var.

    Raises:
        ValueError: a text has more than `context_length - 2` tokens and `truncate` is off.
    """
    if isinstance(texts, str):
        texts = [texts]
    encoding = _encoding()
    rows = np.zeros((len(texts), context_length), np.int32)
    for row, text in zip(rows, texts):
        ids = [encoding.start_of_text, *encode(text), encoding.end_of_text]
        if len(ids) > context_length:
            if not truncate:
                raise ValueError(f"text of {len(ids)} tokens, more than the context length "
                                 f"{context_length}: {text!r}")
            ids = ids[:context_length - 1] + ids[-1:]
        row[:len(ids)] = ids
    return rows
