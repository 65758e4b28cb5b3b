"""The parameters of a run's models, against counts by hand."""

import numpy as np
import pytest

from models import auxiliary, lora
from models.lp_plus_plus import LPPlusPlus
from models.parameter_count import in_words, parameter_counts
from system.files import write_pickle
from tests.conftest import SMALL, shapes_of
from tests.reference.weights import random_state

C, D, K, M, W, R = 3, SMALL.embed_dim, 2, 5, SMALL.text.width, 4  # noqa: N816


def block(width):
    """Numbers of a transformer's block: attention, two layers four times as wide, two norms."""
    return 4 * width * (width + 1) + 8 * width * width + 5 * width + 4 * width


def small_clip_by_hand():
    image, text = SMALL.vision.width, SMALL.text.width
    n_patches = (SMALL.image_size // SMALL.patch_size) ** 2
    image_encoder = (3 * SMALL.patch_size ** 2 * image  # patches to channels
                     + image + (n_patches + 1) * image  # class token, positions
                     + 2 * 2 * image + SMALL.vision.layers * block(image)  # norms before and after
                     + image * D)
    text_encoder = ((SMALL.vocab_size + SMALL.context_length) * text
                    + SMALL.text.layers * block(text) + 2 * text + text * D)
    return image_encoder, text_encoder + 1  # and the logit scale


@pytest.fixture
def head(unit_rows):
    """A fitted `LPPlusPlus`."""
    import jittor as jt
    return LPPlusPlus(1).fit(unit_rows(6, D), np.arange(6) % C, jt.array(unit_rows(C, D, seed=1)))


def test_each_part_is_counted_from_its_arrays(small_clip, head):
    clip_by_hand = sum(small_clip_by_hand())
    additions = lora.apply_lora(small_clip, "both", ["q", "v"], R)
    state = lora.lora_state(small_clip)
    lora.merge_lora(small_clip)
    counts = parameter_counts(small_clip, state, np.zeros((K, M, W)), head.state())
    assert len(additions) == SMALL.vision.layers + SMALL.text.layers
    # Of q and v each a matrix down to R channels and one up again.
    assert counts == {"CLIP": clip_by_hand, "LoRA": len(additions) * 2 * (R * 64 + 64 * R),
                      "learned prompts": K * M * W,
                      "head": C * D + C + C + D, "total": sum(list(counts.values())[:-1])}


def test_an_auxiliary_encoder_counts_what_encodes_images(small_clip, head, tmp_path):
    write_pickle(str(tmp_path / "clip.pkl"), random_state(shapes_of(small_clip)))
    encoder = auxiliary.load_encoder(str(tmp_path / "clip.pkl"), 16)
    counts = parameter_counts(small_clip, {}, np.zeros((K, M, W)), head.state(), encoder,
                              np.zeros((C, D)))
    assert counts["auxiliary encoder"] == small_clip_by_hand()[0]
    assert counts["auxiliary head"] == C * D and counts["LoRA"] == 0
    assert counts["total"] == sum(list(counts.values())[:-1])


def test_in_words():
    assert in_words({"CLIP": 151277313, "head": 42, "total": 151277355}) == (
        "CLIP 151,277,313 + head 42 = 151,277,355")
