"""What TransCLIP gets of the pipeline, and what is made of its assignments."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.transclip import transclip
from pipeline.classifier import log_probabilities, predict
from pipeline.transduction import predict_together, require_mode
from system.errors import UserError
from tests.test_classifier import world


def settings(mode, **changes):
    return SimpleNamespace(mode=mode, kl_weight=1.0, support_weight=0.02, nearest=3, **changes)


@pytest.mark.parametrize("mode", ["few-shot", "zero-shot"])
def test_it_starts_from_the_pipelines_predictions(mode):
    trained, features = world(n=30)
    trained.support, trained.support_labels = features.modes[:8], np.repeat(trained.base, 2)
    known = (trained.support, trained.support_labels) if mode == "few-shot" else (None, None)
    predictions, log_z = predict_together(trained, features, settings(mode))
    np.testing.assert_array_equal(
        log_z, transclip(features.all_modes, log_probabilities(trained, features)[0], *known))
    np.testing.assert_array_equal(predictions.labels[:, 0], log_z.argmax(axis=1))
    np.testing.assert_allclose(predictions.probabilities[:, 0], np.exp(log_z.max(axis=1)),
                               rtol=1e-5)


def test_without_pull_of_the_others_each_image_keeps_its_prediction():
    trained, features = world(n=12)
    trained.support, trained.support_labels = features.modes[:4], trained.base
    strong = settings("few-shot")
    strong.kl_weight = 1e4
    predictions, _ = predict_together(trained, features, strong)
    np.testing.assert_array_equal(predictions.labels[:, 0], predict(trained, features).labels[:, 0])


def test_an_unknown_mode_is_named():
    with pytest.raises(UserError, match="'few'; .*few-shot"):
        require_mode(SimpleNamespace(mode="few"))


