"""What a run's page chooses to show, against plain counting."""

import numpy as np
import pytest

from runs.record import (
    confused_pairs,
    crops_shown,
    read_record,
    surest_mistakes,
    telling_images,
    typical,
    worst_classes,
    write_record,
)
from system.errors import UserError
from system.files import write_pickle
from tests.reference.run import example_record

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1, 2])
PREDICTED = np.array([1, 1, 0, 0, 1, 1, 2, 0, 1, 2])


def test_confused_pairs_count_both_directions():
    (a, b, of_a, of_b), (c, d, of_c, of_d) = confused_pairs(PREDICTED, LABELS)
    assert (a, b, list(of_a), list(of_b)) == (0, 1, [0, 1], [3])
    assert (c, d, list(of_c), list(of_d)) == (2, 0, [7], [])


@pytest.mark.parametrize("seed", range(3))
def test_confused_pairs_hold_every_mistake_once(seed):
    rng = np.random.RandomState(seed)
    labels, predicted = rng.randint(-1, 5, 80), rng.randint(5, size=80)
    pairs = confused_pairs(predicted, labels, n_pairs=100)
    places = np.concatenate([np.concatenate(pair[2:]) for pair in pairs])
    assert sorted(places) == [i for i in range(80) if labels[i] >= 0 and labels[i] != predicted[i]]
    for a, b, of_a, of_b in pairs:
        assert all(labels[i] == a and predicted[i] == b for i in of_a)
        assert all(labels[i] == b and predicted[i] == a for i in of_b)
        assert len(of_a) >= len(of_b)
    sizes = [len(of_a) + len(of_b) for *_, of_a, of_b in pairs]
    assert sizes == sorted(sizes, reverse=True)


def test_worst_classes():
    assert worst_classes(PREDICTED, LABELS) == [(0, 1, 3, 1), (1, 2, 3, 0), (2, 2, 3, 0)]
    assert worst_classes(PREDICTED, LABELS, 1) == [(0, 1, 3, 1)]
    assert worst_classes(np.array([4]), np.array([4])) == [(4, 1, 1, None)]


def test_typical_is_a_recognised_image_where_there_is_one():
    assert typical(PREDICTED, LABELS, 0) == 2
    assert typical(np.array([1, 1]), np.array([0, 1]), 0) == 0
    assert typical(PREDICTED, LABELS, 9) is None


def test_surest_mistakes():
    confidence = np.linspace(0, 1, 10)
    assert surest_mistakes(PREDICTED, LABELS, confidence, 3) == [7, 3, 1]


def test_telling_images_show_help_and_harm():
    labels = np.array([0, 1, 2, 3, 4, -1])
    before = np.array([1, 1, 2, 0, 0, 0])
    after = np.array([0, 1, 0, 3, 4, 0])
    chosen = telling_images(before, after, labels)
    assert chosen == [0, 3, 2, 1]  # two that it helps, one that it harms, one that stays
    assert telling_images(before[:1], after[:1], np.array([-1])) == [0]


def test_crops_are_shown_from_the_most_to_the_least_inlier():
    pixels = np.zeros((20, 8, 8, 3), np.uint8)
    inlierness = np.random.RandomState(0).permutation(20) / 190
    shown = crops_shown(pixels, inlierness)
    expected = np.sort(inlierness)[::-1]
    np.testing.assert_array_equal(shown["inlierness"], [*expected[:8], *expected[-8:]])
    assert len(shown["crops"]) == 16 and shown["whole"].startswith(b"\xff\xd8")


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read_record(str(tmp_path)) is None
    record = example_record()
    write_record(str(tmp_path), record)
    np.testing.assert_equal(read_record(str(tmp_path)), record)


@pytest.mark.parametrize("stages, is_there", [(["head", "test"], True), (["test", "head"], False)])
def test_the_record_of_an_earlier_training_is_left_out(stages, is_there, tmp_path):
    write_record(str(tmp_path), example_record())
    (tmp_path / "log.jsonl").write_text("".join(
        f'{{"time": {i}, "stage": "{stage}"}}\n' for i, stage in enumerate(stages)))
    assert (read_record(str(tmp_path)) is not None) == is_there


def test_another_file_is_no_record(tmp_path):
    write_pickle(str(tmp_path / "test.pkl"), {"config": {}})
    with pytest.raises(UserError, match="run test.py again"):
        read_record(str(tmp_path))
