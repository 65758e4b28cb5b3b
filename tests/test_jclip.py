"""CLIP against stored references of OpenAI's architecture, its tokens, pixels and files."""

import os
import pickle
import re
import shutil
import subprocess
import sys

import jittor as jt
import numpy as np
import pytest
from PIL import Image

from models import jclip
from models.jclip import preprocess
from models.jclip.model import CLIP
from models.jclip.preprocess import MEAN, STD, Preprocess
from models.jclip.sizes import sizes_of
from models.jclip.tokenizer import encode, tokenize
from system.errors import UserError
from system.files import read_pickle, write_pickle
from tests.conftest import SMALL, shapes_of
from tests.reference.pictures import write_pictures
from tests.reference.weights import clip_shapes, random_state

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REFERENCE = os.path.join(ROOT, "tests", "reference", "clip_quick_gelu.npz")


def test_features_equal_the_reference(small_clip, images, tokens):
    """`reference/make_clip.py` computes them with open_clip in PyTorch from the same seeds."""
    reference = np.load(REFERENCE)
    for name, ours in (("image_features", small_clip.encode_image(images)),
                       ("text_features", small_clip.encode_text(tokens)),
                       ("logits_per_image", small_clip(images, tokens)[0])):
        expected = reference[name]
        assert np.abs(ours.numpy() - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_sizes_come_from_the_weights(small_clip):
    assert sizes_of(random_state(shapes_of(small_clip))) == SMALL


def test_padding_changes_nothing(small_clip, tokens):
    together = small_clip.encode_text(tokens).numpy()
    alone = np.concatenate([small_clip.encode_text(row[None]).numpy() for row in tokens])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(small_clip.encode_text(jt.array(tokens)).numpy(), together)


def test_logits_are_scaled_cosines(small_clip, images, tokens):
    per_image, per_text = small_clip(images, tokens)
    image, text = (f.numpy() / np.linalg.norm(f.numpy(), axis=1, keepdims=True) for f in (
        small_clip.encode_image(images), small_clip.encode_text(tokens)))
    np.testing.assert_allclose(per_image.numpy(), small_clip.scale() * image @ text.T, atol=1e-4)
    np.testing.assert_array_equal(per_text.numpy(), per_image.numpy().T)


def test_an_image_of_another_size_is_refused(small_clip):
    with pytest.raises(ValueError, match="16, 16"):
        small_clip.encode_image(jt.zeros((1, 3, 32, 32)))


@pytest.mark.parametrize("text, ids", [  # from open_clip's SimpleTokenizer
    ("a photo of a dog.", [320, 1125, 539, 320, 1929, 269]),
    ("Tom &amp;amp; Jerry's  café", [2435, 261, 9164, 568, 15304]),
    ("it’s “quoted”", [585, 568, 257, 27706, 257]),
    ("12 Chihuahuas!!", [272, 273, 25437, 601, 748]),
    ("犬 🐶", [163, 232, 361, 10631]),
    ("<|endoftext|> x", [49407, 343]),
])
def test_tokens_equal_openais(text, ids):
    assert encode(text) == ids


def test_tokenize_pads_and_refuses_a_long_text():
    rows = tokenize(["a dog", "a"], context_length=6)
    np.testing.assert_array_equal(rows, [[49406, 320, 1929, 49407, 0, 0],
                                         [49406, 320, 49407, 0, 0, 0]])
    with pytest.raises(ValueError, match="a dog a dog"):
        tokenize("a dog a dog", context_length=5)
    np.testing.assert_array_equal(tokenize("a dog a dog", context_length=5, truncate=True),
                                  [[49406, 320, 1929, 320, 49407]])


@pytest.mark.parametrize("size", [(40, 25), (25, 40), (16, 16), (3, 50), (1, 7)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_preprocess_is_resize_crop_normalise(size, mode):
    noise = np.random.RandomState(3).randint(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise).convert(mode)
    ours = Preprocess(16)(image).numpy()
    short = min(size)
    resized = image.resize(tuple(int(16 * side / short) for side in size), Image.BICUBIC)
    left, top = (int(round((side - 16) / 2)) for side in resized.size)
    crop = np.asarray(resized.convert("RGB"), np.float32)[top:top + 16, left:left + 16] / 255
    expected = ((crop - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
    assert ours.shape == (3, 16, 16)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(2000, 3), (5, 4000), (1, 900)])
def test_a_long_image_is_cut_before_it_is_resized(size, monkeypatch):
    """Within one level of what the resized whole gives, of which the crop is a small part."""
    image = Image.fromarray(np.random.RandomState(0).randint(
        0, 256, (size[1], size[0], 3), np.uint8))
    ours = Preprocess(16).pixels(image)
    monkeypatch.setattr(preprocess, "_LONGEST", 1000)
    whole = Preprocess(16).pixels(image)
    assert ours.shape == (16, 16, 3)
    assert np.abs(ours.astype(int) - whole).max() <= 1


def test_load_reads_plain_and_jittor_pickles(small_clip, images, tmp_path):
    state = random_state(shapes_of(small_clip))
    expected = small_clip.encode_image(images).numpy()
    half = {n: v.astype(np.float16) for n, v in state.items()}
    half["input_resolution"] = 16  # OpenAI's archives have three such entries
    with open(tmp_path / "plain.pkl", "wb") as file:
        pickle.dump(half, file)
    write_pickle(str(tmp_path / "ours.pkl"), state)
    jt.save(state, str(tmp_path / "jittor.pkl"))
    jt.save(small_clip.state_dict(), str(tmp_path / "vars.pkl"))
    for name, tolerance in (("plain", 0.05), ("ours", 1e-6), ("jittor", 1e-6), ("vars", 1e-6)):
        model, preprocess = jclip.load(str(tmp_path / f"{name}.pkl"))
        assert preprocess.image_size == 16
        np.testing.assert_allclose(model.encode_image(images).numpy(), expected,
                                   atol=tolerance * np.abs(expected).max())
    assert jt.load(str(tmp_path / "ours.pkl")).keys() == state.keys()


MEMORY = """
import sys
from system import runtime
runtime.prepare()
import jittor
from models import jclip
def peak():
    with open("/proc/self/status") as file:
        return 1024 * int(file.read().split("VmHWM:")[1].split()[0])
before = peak()
jclip.load(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_loading_holds_the_weights_once(tmp_path, dtype):
    """1.3 times at full size; what else is imported shows here too."""
    shapes = clip_shapes(width=512, layers=6, vocab_size=2000)
    path = str(tmp_path / "weights.pkl")
    write_pickle(path, {name: np.ones(shape, dtype) for name, shape in shapes.items()})
    done = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True,
                          text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    n_bytes = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    assert int(done.stdout) <= 1.5 * n_bytes


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("visual.proj"), "missing visual.proj"),
    (lambda s: s.update(stranger=np.zeros(3)), "unknown stranger"),
    (lambda s: s.update({"visual.proj": np.zeros((64, 8))}), "misshapen visual.proj"),
    (lambda s: s.pop("visual.conv1.weight"), "no CLIP"),
    (lambda s: s.update(text_projection="text"), "text_projection is no array"),
])
def test_wrong_weights_are_named(small_clip, tmp_path, change, message):
    state = random_state(shapes_of(small_clip))
    change(state)
    path = str(tmp_path / "weights.pkl")
    write_pickle(path, state)
    with pytest.raises(UserError, match=message) as error:
        jclip.load(path)
    assert path in str(error.value)


def test_a_missing_file_and_an_unknown_name_are_named(tmp_path):
    for name in (str(tmp_path / "none.pkl"), "ViT-Z/99"):
        with pytest.raises(UserError, match=name):
            jclip.load(name)
    assert "ViT-B/32" in jclip.available_models()


def test_a_damaged_file_is_refused(tmp_path):
    path = str(tmp_path / "weights.pkl")
    write_pickle(path, {"x": np.arange(100)})
    content = bytearray(open(path, "rb").read())
    content[60] ^= 1
    open(path, "wb").write(content)
    with pytest.raises(UserError, match="damaged"):
        read_pickle(path)
    open(path, "wb").write(content[:50])
    with pytest.raises(UserError, match="not a readable"):
        read_pickle(path)


def test_state_survives_the_checkpoint(small_clip, tmp_path):
    path = str(tmp_path / "weights.pkl")
    write_pickle(path, random_state(shapes_of(small_clip)))
    model = CLIP(SMALL)
    model.load_state_dict(read_pickle(path))
    for (_, a), (_, b) in zip(model.named_parameters(), small_clip.named_parameters()):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_pixels_equal_openais_preprocessing(tmp_path):
    """`reference/make_pixels.py` computes them with torchvision, pixel for pixel."""
    expected = np.load(os.path.join(os.path.dirname(__file__), "reference", "pixels.npz"))
    names = write_pictures(tmp_path)
    assert len(names) >= 30 and names == sorted(expected.files)
    for name in names:
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(Preprocess(32).pixels(image), expected[name],
                                          err_msg=name)


DEMO = """
import jclip as clip
import jittor as jt
from PIL import Image

model, preprocess = clip.load("ViT-B-32.pkl")
image = preprocess(Image.open("CLIP.png")).unsqueeze(0)
text = clip.tokenize(["a diagram", "a dog", "a cat"])
with jt.no_grad():
    logits_per_image, logits_per_text = model(image, text)
    probs = logits_per_image.softmax(dim=-1)
print("Label probs:", probs)
"""


@pytest.mark.slow
def test_jclip_by_its_own_name(tmp_path, small_clip):
    """JCLIP's demo, in a folder of one's own, prints the probabilities that it should."""
    site, place = tmp_path / "site", tmp_path / "place"
    source = tmp_path / "source"  # where setuptools leaves what it builds
    for name in ("models", "system"):
        shutil.copytree(os.path.join(ROOT, name), source / name)
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md"):
        shutil.copy(os.path.join(ROOT, name), source)
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                           "--target", str(site), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    place.mkdir()
    state = {name: value.numpy() for name, value in small_clip.named_parameters()}
    write_pickle(str(place / "ViT-B-32.pkl"), state)
    pixels = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)
    Image.fromarray(pixels).save(place / "CLIP.png")
    done = subprocess.run([sys.executable, "-c", DEMO], cwd=place, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(site)})
    assert done.returncode == 0, done.stderr[-2000:]
    model, preprocess = jclip.load(str(place / "ViT-B-32.pkl"))
    image = preprocess(Image.open(place / "CLIP.png")).unsqueeze(0)
    text = jclip.tokenize(["a diagram", "a dog", "a cat"])
    printed = [float(number) for number in re.findall(r"\d\.\d+", done.stdout)]
    expected = model(image, text)[0].softmax(dim=-1).numpy()[0]
    np.testing.assert_allclose(printed, expected, atol=1e-6)
