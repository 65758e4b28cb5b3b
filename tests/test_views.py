"""Views of images: what is cut, that it can be repeated, and files that are no images."""

import io
import math
import random
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data import formats
from data import views as views_module
from data.image_paths import list_images
from data.views import Views, decode, random_crop, read_ahead, view_batches
from models.jclip.preprocess import Preprocess

SIZE = 8


whole = Preprocess(SIZE).pixels


def views_of(n_views=4, scale=(0.3, 1.0), seed=1, **settings):
    return Views(Preprocess(SIZE), n_views, scale, seed, **settings)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(
        0, 256, (height, width, 3), np.uint8))


def gradient(side=256):
    """Red is the column and green the row, so that a crop's colours tell its place."""
    ramp = np.arange(side, dtype=np.uint8)
    columns, rows = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1))


@pytest.fixture
def photos(tmp_path):
    """Paths of six images, no two alike."""
    paths = []
    for i in range(6):
        paths.append(str(tmp_path / f"image_{i}.png"))
        noise(20 + i, 30 - i, seed=i).save(paths[-1])
    return paths


@pytest.fixture
def broken(tmp_path):
    """Paths of files that end in .jpg and cannot be decoded, by what is wrong."""
    noise(64, 64).save(tmp_path / "whole.jpg")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    contents = {"empty": b"", "header": jpeg[:20], "truncated": jpeg[:700],
                "text": b"<html>not found</html>\n", "zeros": bytes(500)}
    paths = {name: tmp_path / f"{name}.jpg" for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    return {name: str(path) for name, path in paths.items()}


def batches_by_path(views, paths, batch_size, n_threads, **arguments):
    """{path: views} of all batches."""
    return {paths[i]: array
            for indices, pixels, _ in view_batches(views, paths, batch_size, n_threads, "test",
                                                   **arguments)
            for i, array in zip(indices, pixels)}


# Views of one image


def test_view_0_is_the_whole_image_and_the_others_are_crops(photos):
    views = views_of(n_views=5)
    array = views.of(photos[0])
    assert array.shape == views.shape == (5, SIZE, SIZE, 3)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[0], whole(Image.open(photos[0])))
    assert len({view.tobytes() for view in array}) == 5


def test_without_the_whole_image_all_views_are_crops(photos):
    first = whole(Image.open(photos[0]))
    array = views_of(whole_first=False).of(photos[0])
    assert array.shape == (4, SIZE, SIZE, 3)
    assert not any((view == first).all() for view in array)


def test_one_view_is_the_whole_image_alone(photos):
    np.testing.assert_array_equal(views_of(n_views=1).of(photos[0]),
                                  whole(Image.open(photos[0]))[None])


def test_crops_depend_on_the_seed(photos):
    one, again, other = (views_of(seed=seed).of(photos[0]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one[0], other[0])
    assert all((a != b).any() for a, b in zip(one[1:], other[1:]))


def test_crops_depend_on_the_picture_and_on_no_name(tmp_path):
    """Nor on the format: what is not lossy holds the same picture."""
    image = noise(30, 20)
    places = ["a/x.png", "b/x.png", "a/y.png", "y.bmp", "z.tif"]
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        image.save(tmp_path / place)
    first, *others = (views_of().of(str(tmp_path / place)) for place in places)
    for other in others:
        np.testing.assert_array_equal(first, other)
    pixels = np.asarray(image).copy()
    pixels[8, 8] ^= 1  # another picture, though the eye would not see it
    Image.fromarray(pixels).save(tmp_path / "other.png")
    other = views_of().of(str(tmp_path / "other.png"))
    assert all((a != b).any() for a, b in zip(first[1:], other[1:]))


def test_a_key_stands_for_the_picture(photos):
    one, again, other = (views_of().of(path, key) for path, key in (
        (photos[0], "0/1"), (photos[0], "0/1"), (photos[0], "0/2")))
    np.testing.assert_array_equal(one, again)
    assert (one[1:] != other[1:]).any() and (one[1:] != views_of().of(photos[0])[1:]).any()
    twin = Image.open(photos[0]).size
    assert views_of().boxes(noise(*twin, seed=98), "k") == views_of().boxes(
        noise(*twin, seed=99), "k")


def test_the_global_random_state_neither_matters_nor_moves(photos):
    np.random.seed(0)
    first, after = views_of().of(photos[0]), np.random.random()
    np.random.seed(0)
    assert np.random.random() == after
    np.testing.assert_array_equal(views_of().of(photos[0]), first)


# Crops


def crop_places(scale, n_crops=300):
    """Width, height and left edge of crops of the gradient, and whether they are mirrored.

    Measured between a quarter and three quarters of the crop, half its width apart, where no
    edge of the bicubic filter is felt. Colours are whole, so a side is right within 2 pixels.
    """
    rng = np.random.RandomState(0)
    places = []
    for _ in range(n_crops):
        pixels = random_crop(gradient(), 64, scale, rng).astype(float)
        width = 2 * (pixels[32, 48, 0] - pixels[32, 16, 0])
        height = 2 * (pixels[48, 32, 1] - pixels[16, 32, 1])
        left = pixels[32, :, 0].min()
        places.append((abs(width), height, left, width < 0))
    return np.array(places).T


@pytest.mark.parametrize("scale", [(0.1, 0.3), (0.5, 0.7), (0.25, 0.25)])
def test_crops_keep_to_the_scale_and_the_aspect_ratio(scale):
    widths, heights, _, _ = crop_places(scale)
    tolerance = 4 * 2 * 256 / 256 ** 2  # of the area's share: two sides, each 2 pixels off
    shares = widths * heights / 256 ** 2
    assert shares.min() >= scale[0] - tolerance and shares.max() <= scale[1] + tolerance
    # 300 draws come this near to both ends and to the middle of a uniform distribution.
    spread = scale[1] - scale[0]
    assert shares.min() <= scale[0] + 0.05 * spread + tolerance
    assert shares.max() >= scale[1] - 0.05 * spread - tolerance
    assert abs(shares.mean() - sum(scale) / 2) <= 0.1 * spread + tolerance
    ratios = np.log(widths / heights)
    limit = math.log(4 / 3)
    assert np.abs(ratios).max() <= limit + 4 / widths.min()
    assert ratios.min() <= -0.9 * limit and ratios.max() >= 0.9 * limit


def test_crops_lie_everywhere_and_half_of_them_are_mirrored():
    widths, _, lefts, mirrored = crop_places((0.2, 0.4))
    free = lefts / (256 - widths)
    assert free.min() <= 0.05 and free.max() >= 0.95 and abs(free.mean() - 0.5) <= 0.06
    assert abs(mirrored.mean() - 0.5) <= 0.1


def test_crops_are_not_mirrored_where_that_is_switched_off():
    rng = np.random.RandomState(0)
    crops = [random_crop(gradient(), SIZE, (0.2, 0.4), rng, flip=False) for _ in range(50)]
    assert all(crop[0, 0, 0] < crop[0, -1, 0] for crop in crops)


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (2, 300), (3, 3)])
def test_thin_and_tiny_images_have_views(tmp_path, size):
    path = str(tmp_path / "thin.png")
    noise(*size).save(path)
    array = views_of(n_views=8, scale=(0.5, 1.0)).of(path)
    np.testing.assert_array_equal(array[0], whole(Image.open(path)))
    assert array.shape == (8, SIZE, SIZE, 3)
    for axis, side in ((2, size[0]), (1, size[1])):  # a side of one pixel has one colour
        if side == 1:
            assert (array == array.take([0], axis)).all()
    if max(size) >= 50:
        assert len({view.tobytes() for view in array[1:]}) > 1


# Files


@pytest.mark.parametrize("mode, suffix", [
    ("L", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("1", "png"), ("P", "gif"),
    ("CMYK", "jpg"), ("L", "jpg"), ("RGB", "bmp"), ("RGB", "webp"), ("CMYK", "tif")])
def test_images_of_every_mode_become_rgb(tmp_path, mode, suffix):
    path = str(tmp_path / f"image.{suffix}")
    noise(20, 30).convert(mode).save(path)
    stored = Image.open(path)
    assert stored.mode == mode
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(path)
        array = views_of().of(path)
    assert image.mode == "RGB" and image.size == (20, 30)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(stored.convert("RGB")))
    np.testing.assert_array_equal(array[0], whole(image))


@pytest.mark.parametrize("kind", ["empty", "header", "truncated", "text", "zeros", "missing"])
def test_a_file_that_cannot_be_decoded_is_none_and_named(broken, tmp_path, kind):
    path = broken.get(kind, str(tmp_path / "missing.jpg"))
    for read in (decode, views_of().of):
        with pytest.warns(UserWarning) as caught:
            assert read(path) is None
        assert len(caught) == 1
        assert str(caught[0].message).startswith(f"{path} cannot be decoded (")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_breaks_off_shows_what_is_there(tmp_path, mode, share):
    whole = tmp_path / "whole.jpg"
    gradient().convert(mode).save(whole)
    content, path = whole.read_bytes(), str(tmp_path / "part.jpg")
    (tmp_path / "part.jpg").write_bytes(content[:int(share * len(content))])
    with pytest.warns(UserWarning) as caught:
        found = np.asarray(decode(path))
    assert len(caught) == 1 and str(caught[0].message).startswith(f"{path} breaks off")
    expected = np.asarray(decode(str(whole)))
    assert found.shape == expected.shape
    same = (found == expected).all(axis=(1, 2))
    n_rows = int(same.argmin())  # the first that differs
    assert abs(n_rows / len(same) - share) < 0.25 and n_rows >= 8
    assert (found[min(n_rows + 32, 255):] == found[-1, -1]).all()  # one colour for the rest


def test_nothing_is_set_for_other_images_by_one_that_breaks_off(tmp_path):
    noise(64, 64).save(tmp_path / "a.jpg")
    noise(64, 64).save(tmp_path / "a.png")
    for name in ("a.jpg", "a.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:len(content) * 3 // 4])
    with pytest.warns(UserWarning):
        assert decode(str(tmp_path / "a.jpg")) is not None
        assert decode(str(tmp_path / "a.png")) is None
    with pytest.raises(OSError):
        Image.open(tmp_path / "a.jpg").load()


@pytest.mark.parametrize("suffix, kind", [
    ("jfif", "JPEG"), ("jpe", "JPEG"), ("JPE", "JPEG"), ("jp2", "JPEG2000"), ("pgm", "PPM")])
def test_every_ending_of_a_format_is_an_images(tmp_path, suffix, kind):
    noise(20, 30).save(tmp_path / f"image.{suffix}", kind)
    (path,) = list_images(str(tmp_path))
    assert decode(path).size == (20, 30)


@pytest.fixture
def without_packages(monkeypatch):
    """As where neither pillow-heif nor a package for AVIF is installed."""
    for name in ("pillow_heif", "pillow_avif"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("HEIF", "AVIF"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    formats.readable_formats.cache_clear()
    yield
    formats.readable_formats.cache_clear()


@pytest.mark.parametrize("brand, package", [
    (b"heic", "pillow-heif"), (b"mif1", "pillow-heif"), (b"avif", "pillow-avif-plugin")])
def test_a_format_that_needs_a_package_names_it(tmp_path, without_packages, brand, package):
    path = tmp_path / "photo.jpg"  # the content tells
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(40))
    with pytest.warns(UserWarning, match=f"cannot be decoded .*convert .*pip install {package}"):
        assert decode(str(path)) is None


def test_a_package_that_is_installed_is_used(tmp_path, monkeypatch, without_packages):
    """What pillow_heif does, with a picture of our own."""
    def open_heif(file, name):
        with file:
            return Image.open(io.BytesIO(file.read()[32:]), formats=("PNG",))

    def register():
        Image.register_open("HEIF", open_heif, lambda start: start[4:12] == b"ftypheic")

    Image.init()
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    noise(20, 30).save(tmp_path / "a.png")
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic".ljust(32, b"\0")
                                          + (tmp_path / "a.png").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(str(tmp_path / "photo.HEIC")).size == (20, 30)
        assert formats.needs_package("photo.HEIC") is None


@pytest.mark.parametrize("side, decodable", [(10, True), (14, True), (20, False)])
def test_a_decompression_bomb_is_none_and_named(tmp_path, monkeypatch, side, decodable):
    """Pillow warns of more pixels than the limit and refuses more than twice as many."""
    path = str(tmp_path / "bomb.png")
    noise(side, side).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    if decodable:
        assert decode(path).size == (side, side)
    else:
        with pytest.warns(UserWarning, match="bomb.png cannot be decoded"):
            assert decode(path) is None


# Batches


def test_batches_are_in_order_and_whole(photos):
    batches = list(view_batches(views_of(), photos, 4, 0, "test"))
    assert [indices.tolist() for indices, _, _ in batches] == [[0, 1, 2, 3], [4, 5]]
    for indices, pixels, _ in batches:
        assert pixels.shape == (len(indices), 4, SIZE, SIZE, 3) and pixels.dtype == np.uint8
        for i, array in zip(indices, pixels):
            np.testing.assert_array_equal(array, views_of().of(photos[i]))


@pytest.mark.parametrize("n_threads", [0, 1, 2])
def test_crops_depend_on_neither_order_nor_batch_nor_threads(photos, n_threads):
    expected = {path: views_of().of(path) for path in photos}
    for batch_size in (1, 4, 100):
        shuffled = random.Random(batch_size).sample(photos, len(photos))
        found = batches_by_path(views_of(), shuffled, batch_size, n_threads)
        assert found.keys() == expected.keys()
        for path in photos:
            np.testing.assert_array_equal(found[path], expected[path])


def test_keys_reach_their_own_images(photos):
    keys = [f"3/{i}" for i in range(len(photos))]
    found = batches_by_path(views_of(), photos, 4, 2, keys=keys)
    for path, key in zip(photos, keys):
        np.testing.assert_array_equal(found[path], views_of().of(path, key))


@pytest.mark.parametrize("n_threads", [0, 2])
def test_undecodable_images_are_left_out_of_their_batch(photos, broken, n_threads):
    bad = list(broken.values())
    # The second batch has one image and the third none.
    paths = [photos[0], bad[0], photos[1]] + [bad[1], bad[2], photos[2]] + bad[:3] + [photos[3]]
    with pytest.warns(UserWarning) as caught:
        batches = [(indices.tolist(), pixels) for indices, pixels, _ in view_batches(
            views_of(), paths, 3, n_threads, "test")]
    assert [indices for indices, _ in batches] == [[0, 2], [5], [9]]
    for indices, pixels in batches:
        for i, array in zip(indices, pixels):
            np.testing.assert_array_equal(array, views_of().of(paths[i]))
    named = sorted(str(w.message).split(" cannot be decoded")[0] for w in caught)
    assert named == sorted(2 * bad[:3])


def test_no_images_are_no_batches():
    assert list(view_batches(views_of(), [], 4, 2, "test")) == []


def test_the_bar_counts_every_image(photos, broken):
    paths = [photos[0], broken["text"], photos[1]]
    with pytest.warns(UserWarning):
        bars = [bar for _, _, bar in view_batches(views_of(), paths, 2, 0, "test")]
    assert bars[0] is bars[1]
    assert bars[0].n == bars[0].total == 3


@pytest.mark.parametrize("n_threads", [0, 1, 3])
def test_read_ahead_keeps_the_order(n_threads):
    assert list(read_ahead(lambda x: x * x, list(range(50)), n_threads, ahead=4)) == [
        x * x for x in range(50)]


def most_begun(n_bytes, n_threads=2, ahead=5):
    """How many results are begun at most before the first of them is given back."""
    begun, most = [], 0
    items = (begun.append(x) or x for x in range(50))
    results = read_ahead(lambda x: x, items, n_threads, ahead, n_bytes=lambda result: n_bytes)
    for taken, result in enumerate(results):
        assert result == taken
        most = max(most, len(begun) - taken)
    return most


def test_read_ahead_starts_no_more_than_it_may():
    assert most_begun(n_bytes=1) == 6


def test_large_results_are_not_kept_ready(monkeypatch):
    monkeypatch.setattr(views_module, "_READY_BYTES", 4 * 10)
    assert most_begun(n_bytes=10) == 5
    assert most_begun(n_bytes=1000) == 3  # but one a thread


@pytest.mark.parametrize("n_threads", [0, 2])
def test_read_ahead_passes_errors_on(n_threads):
    results = read_ahead(lambda x: 1 // x, [1, 0, 1], n_threads, ahead=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
