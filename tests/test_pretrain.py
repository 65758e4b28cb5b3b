"""Pre-training of the small CLIP: captions, loss and the file that it leaves."""

import os

import jittor as jt
import numpy as np
import pytest

from models import jclip
from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from models.jclip.tokenizer import END_OF_TEXT, encode
from sample import pretrain

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHIPPED = os.path.join(ROOT, "test_pkl", "sample", "clip.pkl")


@pytest.fixture
def model():
    model = CLIP(CLIPSizes(vision=TowerSizes(64, 1, 1), image_size=16, patch_size=8,
                           text=TowerSizes(64, 1, 1), context_length=24,
                           vocab_size=len(pretrain.known_tokens()), embed_dim=16))
    jt.set_global_seed(0)
    pretrain.initialise(model)
    return model


def test_captions_are_true_short_and_in_known_words():
    known = set(pretrain.known_tokens().tolist())
    random = np.random.default_rng(0)
    for i in range(60):
        image, facts = pretrain.picture((1, i))
        assert image.size == (pretrain.PICTURE_SIZE,) * 2
        for _ in range(5):
            text, claim = pretrain.caption(facts, random)
            assert claim <= facts
            ids = encode(text)
            assert set(ids) <= known and len(ids) + 2 <= pretrain.CONTEXT_LENGTH, text
            for key, value in claim:
                assert key == "domain" or value in text


def test_end_of_text_is_the_last_row():
    assert pretrain.known_tokens()[-1] == encode(END_OF_TEXT)[0]


def test_the_same_number_gives_the_same_picture():
    first, again, other = (pretrain.picture((1, i))[0].tobytes() for i in (4, 4, 5))
    assert first == again != other


def test_the_loss_is_unicls(model):
    """Against the paper's definition (arXiv 2204.03610, equations 3 to 5) in NumPy."""
    random = np.random.RandomState(0)
    pixels = random.randint(0, 255, (3, 16, 16, 3)).astype(np.uint8)
    ids = pretrain.known_tokens()
    texts = ["a round fish", "the bus", "a small blue bird"]
    tokens = np.searchsorted(ids, jclip.tokenize(texts, 24)).astype(np.int32)
    fits = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    loss, logits = pretrain.contrast(model, pixels, tokens, fits)
    z, expected = logits.numpy().astype(np.float64), 0.0
    for axis in (0, 1):
        log_p = z - np.log(np.exp(z).sum(axis=axis, keepdims=True))
        shares = fits / fits.sum(axis=axis, keepdims=True)
        expected -= (shares * log_p).sum() / 3 / 2
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)


def test_steps_of_training_lower_the_loss(model):
    random = np.random.RandomState(0)
    pixels = random.randint(0, 255, (4, 16, 16, 3)).astype(np.uint8)
    tokens = np.searchsorted(pretrain.known_tokens(), jclip.tokenize(
        ["a fish", "a bus", "a bird", "a cake"], 24)).astype(np.int32)
    optimizer = jt.optim.AdamW(list(model.parameters()), lr=1e-3)
    losses = []
    for _ in range(8):
        loss, _ = pretrain.contrast(model, pixels, tokens, np.eye(4, dtype=bool))
        optimizer.step(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_saved_model_computes_the_same_features(model, tmp_path):
    path, rows = str(tmp_path / "clip.pkl"), pretrain.known_tokens()
    pretrain.save(path, model, rows)
    loaded, _ = jclip.load(path)
    tokens = jclip.tokenize(["a striped fish", "a red bird with white wings"], 24)
    ours = loaded.encode_text(tokens).numpy()
    trained = model.encode_text(np.searchsorted(rows, tokens)).numpy()
    np.testing.assert_allclose(ours, trained, atol=5e-3)  # float16


def test_the_shipped_file_is_small_and_of_this_script():
    assert os.path.getsize(SHIPPED) <= 6_000_000
    model, preprocess = jclip.load(SHIPPED)
    assert preprocess.image_size == pretrain.IMAGE_SIZE
    assert model.sizes.context_length == pretrain.CONTEXT_LENGTH
    embedding = model.token_embedding.weight.numpy()
    stored = np.flatnonzero(np.abs(embedding).max(axis=1))
    assert set(stored) <= set(pretrain.known_tokens().tolist())
