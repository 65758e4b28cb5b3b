"""The temperature against a plain search, and where it ends."""

import numpy as np
import pytest

from models.calibration import TEMPERATURES, fit_temperature, probabilities


def drawn(n, n_classes, temperature, seed=0):
    """Logits (N, C), and labels drawn from softmax(logits / temperature)."""
    random = np.random.RandomState(seed)
    logits = random.normal(0, 5, (n, n_classes))
    shares = probabilities(logits, temperature).cumsum(axis=1)
    return logits, (shares < random.uniform(size=(n, 1))).sum(axis=1)


def loss(logits, labels, temperature):
    rows = np.arange(len(labels))
    return -np.log(probabilities(logits, temperature)[rows, labels]).mean()


def test_probabilities_are_a_softmax_that_does_not_overflow():
    logits = np.array([[1000.0, 999.0, -1000.0]])
    expected = np.array([1, np.exp(-0.5), 0]) / (1 + np.exp(-0.5))
    np.testing.assert_allclose(probabilities(logits, 2.0)[0], expected, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_with(temperature):
    logits, labels = drawn(20_000, 6, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_has_the_smallest_loss(seed):
    logits, labels = drawn(40, 5, 2.0, seed)
    best = loss(logits, labels, fit_temperature(logits, labels))
    assert best <= min(loss(logits, labels, t) for t in np.geomspace(0.1, 100, 400)) + 1e-9


def test_logits_in_another_unit_have_a_temperature_in_that_unit():
    logits, labels = drawn(500, 4, 1.5)
    assert fit_temperature(10 * logits, labels) == pytest.approx(
        10 * fit_temperature(logits, labels), rel=1e-6)


def test_what_cannot_be_fitted_ends_at_a_bound():
    logits = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(TEMPERATURES[0])
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(TEMPERATURES[1])


def test_without_images_the_logits_stay_as_they_are():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
