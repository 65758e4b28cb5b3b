"""The table of what each part adds, row by row, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.classifier import predict
from runs.evaluate import ablation_rows
from runs.metrics import ablation_table
from tests.test_classifier import unit, world


def test_each_row_has_the_logits_of_its_part():
    trained, features = world(n=12)
    head = SimpleNamespace(logits=trained.heads.head.logits, reweights=lambda: False)
    trained.heads = trained.heads._replace(head=head, plain_head=head)
    random = np.random.RandomState(1)
    features = features._replace(whole=unit(random.randn(12, 16)),
                                 tuned_whole=unit(random.randn(12, 16)))
    rankings = predict(trained, features).labels
    rows = ablation_rows(trained, features, rankings)
    assert [name for name, *_ in rows] == ["zero-shot", "+ LoRA", "+ head", "+ MTA", "+ OOD"]

    zero_shot, tuned = trained.texts.zero_shot.numpy(), trained.texts.tuned.numpy()
    whole = 20 * features.whole @ zero_shot.T
    by_mta = 20 * features.all_modes @ zero_shot.T
    lora = (20 * features.tuned_whole @ tuned.T + whole[:, trained.base] / 2) / 1.5
    head, head_by_mta = (9 * each[:, :4] for each in (features.tuned_whole, features.tuned_modes))
    expected = [(whole[:, trained.base], whole[:, trained.new]), (lora, whole[:, trained.new]),
                (head, whole[:, trained.new]), *[(head_by_mta, by_mta[:, trained.new])] * 2]
    for (name, base, new, ranked), (wanted_base, wanted_new) in zip(rows, expected):
        np.testing.assert_allclose(base, wanted_base, rtol=2e-5, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(new, wanted_new, rtol=2e-5, atol=2e-5, err_msg=name)
        assert (ranked is rankings) == (name == "+ OOD")


def test_the_table_counts_each_side_and_all():
    base, new = np.array([0, 2]), np.array([1])
    labels = np.array([0, 0, 2, 1, -1])
    base_logits = np.array([[3, 1], [1, 2], [1, 2], [1, 0], [9, 9]], float)
    new_logits = np.array([[4], [0], [0], [2], [9]], float)
    (_, by_logits), (_, ranked) = ablation_table(
        [("by logits", base_logits, new_logits, None),
         ("ranked", base_logits, new_logits, np.array([[0], [0], [2], [2], [0]]))],
        base, new, labels)
    # Among the base classes images 0 and 2 are right; among all image 0 is taken for the new one.
    own = {"base": pytest.approx(2 / 3), "new": 1}
    assert by_logits == {**own, "base of all": pytest.approx(1 / 3), "new of all": 1,
                         "H": pytest.approx(0.5)}
    assert ranked == {**own, "base of all": 1, "new of all": 0, "H": 0}
