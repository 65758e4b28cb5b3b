"""What test.py leaves in a run folder for its page, `test.pkl`: results, a few pictures, versions.

The record is a dict; N images of C classes:

    config      the run's settings            classes     list (C) of [domain, name]
    base        int array, base labels        versions    {name: text}
    names       list (N) of file names        seconds     that the test took
    labels      int array (N,), -1 unknown    threshold   score of even odds
    scores      array (N,), of base/new       temperature of base images' logits
    rankings    int array (N, K), labels by likelihood
    confidence, plain_confidence    arrays (N,), probability of the first label with and without
                the temperature
    base_label, new_label, zero_shot_label    int arrays (N,): the likeliest class of either side,
                and of all by the original CLIP from the whole image
    ablation    `runs.metrics.ablation_table`'s, empty where it was not asked for
    pictures    {image: JPEG}               parameters  {part: how many numbers}, and the total
    crops       what MTA made of a few images: {image, whole: JPEG, crops: JPEGs, inlierness:
                array, one a crop; before, after: [label, probability] without and with MTA}
"""

import io
import os
import platform
from importlib import metadata

import numpy as np
from PIL import Image

from runs.log import read_log
from runs.metrics import summary
from system.errors import UserError
from system.files import read_pickle, write_pickle

RECORD_NAME = "test.pkl"
N_PAIRS, N_WORST, N_LOOKED_AT, N_CROPS = 6, 8, 4, 16
THUMBNAIL = 96  # pixels


def write_record(folder, record):
    write_pickle(os.path.join(folder, RECORD_NAME), record)


def read_record(folder):
    """The record in a run folder; None where the run was not tested since it was trained.

    Raises:
        UserError: the file is damaged, or of another version of this project.
    """
    path, log = os.path.join(folder, RECORD_NAME), read_log(folder)
    if not os.path.exists(path) or log and log[-1]["stage"] != "test":
        return None
    record = read_pickle(path)
    if not isinstance(record, dict) or not {"config", "rankings", "pictures"} <= set(record):
        raise UserError(f"{path} is no record of test.py; run test.py again")
    return record


def summary_of(record):
    """`runs.metrics.summary` of a record."""
    return summary(*(record[name] for name in ("base", "rankings", "scores", "labels")))


def confused_pairs(predicted, labels, n_pairs=N_PAIRS):
    """The pairs of classes that are most often taken for each other.

    Args:
        predicted, labels: int arrays (N,); images without a label (-1) do not count.

    Returns:
        list of (a, b, images of a taken for b, images of b taken for a): two labels and two int
        arrays of places among the N. The likelier mistake is a's; the commonest pair is first.
    """
    mistakes = {}
    for i in np.flatnonzero((labels >= 0) & (predicted != labels)):
        mistakes.setdefault((int(labels[i]), int(predicted[i])), []).append(i)
    pairs = []
    for a, b in {tuple(sorted(pair)) for pair in mistakes}:
        each = [(x, y, np.array(mistakes.get((x, y), []), int)) for x, y in ((a, b), (b, a))]
        (x, y, of_x), (_, _, of_y) = sorted(each, key=lambda m: -len(m[2]))
        pairs.append((x, y, of_x, of_y))
    return sorted(pairs, key=lambda p: (-len(p[2]) - len(p[3]), p[:2]))[:n_pairs]


def worst_classes(predicted, labels, n_classes=N_WORST):
    """The classes whose images are most seldom recognised.

    Args:
        predicted, labels: as for `confused_pairs`.

    Returns:
        list of (label, how many are right, how many there are, the class most often predicted
        in its place or None), the worst first.
    """
    rows = []
    for label in np.unique(labels[labels >= 0]):
        ours = predicted[labels == label]
        wrong, counts = np.unique(ours[ours != label], return_counts=True)
        rows.append((int(label), int((ours == label).sum()), len(ours),
                     int(wrong[counts.argmax()]) if len(wrong) else None))
    return sorted(rows, key=lambda row: (row[1] / row[2], row[0]))[:n_classes]


def surest_mistakes(predicted, labels, confidence, n_images=N_WORST):
    """Places of the wrong predictions with the highest confidence, the surest first."""
    wrong = np.flatnonzero((labels >= 0) & (predicted != labels))
    return [int(i) for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:n_images]]


def typical(predicted, labels, label):
    """An image of a class, a recognised one if there is one; None if there is none."""
    own = np.flatnonzero(labels == label)
    right = own[predicted[own] == label]
    return int([*right, *own][0]) if len(own) else None


def telling_images(before, after, labels, n_images=N_LOOKED_AT):
    """Images that show what MTA does: first those where it changes a wrong answer to a right one.

    Then come, one of each in turn, those where it does harm and those whose answer stays.

    Args:
        before, after: int arrays (N,), the predictions without and with MTA.
        labels: int array (N,), -1 where unknown.

    Returns:
        list of places.
    """
    changed = before != after
    known = labels >= 0
    helped = np.flatnonzero(changed & known & (after == labels))
    harmed = np.flatnonzero(changed & known & (before == labels))
    other = np.flatnonzero(~changed)
    order = [*helped[:n_images - 2], *harmed[:1], *other[:1], *helped[n_images - 2:],
             *np.flatnonzero(changed), *other]
    return [int(i) for i in dict.fromkeys(order)][:n_images]


def pictures_of(paths, predicted, labels, confidence):
    """{image: JPEG} of the images that the page shows beside what went wrong."""
    from data.views import decode  # imports Jittor, which reading a record needs not

    wanted = surest_mistakes(predicted, labels, confidence)
    for _, b, of_a, of_b in confused_pairs(predicted, labels):
        wanted += [*of_a[:1], *of_b[:1], typical(predicted, labels, b)]
    wanted += [typical(predicted, labels, label)
               for label, *_ in worst_classes(predicted, labels)]
    images = {int(i): decode(paths[i]) for i in sorted({i for i in wanted if i is not None})}
    return {i: thumbnail(image) for i, image in images.items() if image is not None}


def crops_shown(pixels, inlierness):
    """The whole image and its crops, from the most to the least inlier.

    Args:
        pixels: uint8 array (V, S, S, 3); view 0 is the whole image.
        inlierness: array (V,).

    Returns:
        {'whole', 'crops', 'inlierness'} of a record; of many crops both ends.
    """
    order = np.argsort(-inlierness, kind="stable")
    if len(order) > N_CROPS:
        order = np.concatenate([order[:N_CROPS // 2], order[-N_CROPS // 2:]])
    whole, *crops = (thumbnail(Image.fromarray(pixels[v])) for v in (0, *order))
    return {"whole": whole, "crops": crops, "inlierness": inlierness[order]}


def thumbnail(image, side=THUMBNAIL):
    """JPEG bytes of a PIL image's middle square."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    file = io.BytesIO()
    image.resize((side, side), Image.BICUBIC, box=(left, top, left + short, top + short)).save(
        file, "JPEG", quality=85)
    return file.getvalue()


def versions():
    """{name: version} of what computes here."""
    packages = ("jittor", "numpy", "pillow")
    return {"Python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
            "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"}
