"""What a training left, loaded: the border between base and new."""

import jittor as jt
import numpy as np
import pytest

from pipeline.checkpoint import config_of_run
from pipeline.classifier import base_odds
from pipeline.trained import load_trained, scores_of

pytestmark = pytest.mark.slow


def load(folder, *overrides):
    config = config_of_run(str(folder / "weights"), list(overrides))
    return load_trained(config), config


@pytest.mark.parametrize("recall, n_base", [(1.0, 8), (0.75, 6), (0.7, 6), (0.125, 1)])
def test_the_loaded_threshold_is_a_training_images_score(trained, recall, n_base):
    """Of 8 training images those from the border on are taken for base, the border's included."""
    found, config = load(trained[0], f"ood.recall={recall}")
    scores = scores_of(found, jt.array(found.support), config.ood)
    assert len(scores) == 8 and len(np.unique(scores)) == 8
    assert found.decision.threshold == np.sort(scores)[-n_base]
    odds = base_odds(found, scores)
    assert (odds >= 0).sum() == n_base and (odds == 0).sum() == 1
