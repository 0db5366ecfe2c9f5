# Oracles: a table of the same task computed beforehand by another program from other draws (five data sets, printed to the
# digits shown); chance level; the data sets' own definition, recomputed.
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.evidence_curve import evidence_curve, gaussian_split, judge, summary

# l2, then train accuracy, test accuracy, train loss, test loss, Occam and E for informative and for random labels
REFERENCE = """
1e5   0.932 0.718 0.6923 0.6928   0.05  -0.03  0.835 0.499 0.6926  0.6931   0.05  -0.00
3.2e2 0.953 0.727 0.5273 0.6259  13.31  -5.60  0.869 0.499 0.5808  0.7010  13.55   0.95
3.2e1 0.994 0.743 0.2345 0.5186  56.22 -11.25  0.949 0.499 0.3372  0.8397  63.60  13.50
1e1   1.000 0.744 0.1234 0.5131  82.76 -10.84  0.986 0.499 0.2111  1.0896 100.51  25.55
1e0   1.000 0.744 0.0246 0.6411 122.17  -3.55  1.000 0.499 0.0525  2.1211 161.14  45.46
1e-6  1.000 0.739 0.0000 2.4639 203.48  64.85  1.000 0.499 0.0000 12.0419 267.48 128.85
"""
TABLE = np.array([line.split() for line in REFERENCE.strip().splitlines()], dtype=float)
NAMES = ("train_accuracy", "test_accuracy", "train_loss", "test_loss", "occam", "ratio_for_null")
PRINTED = (0.05, 0.05, 5e-5, 5e-5, 5e-3, 5e-3)  # rounding of the reference, in our units


@pytest.fixture(scope="module")
def curves():
    l2s = 10.0 ** (np.round(2 * np.log10(TABLE[:, 0])) / 2)  # 3.2e1 stands for 10^1.5
    return {labels: evidence_curve(l2s, labels=labels, test=4000) for labels in ("informative", "random")}


@pytest.mark.parametrize("labels", ["informative", "random"])
@pytest.mark.parametrize("column", range(6), ids=NAMES)
def test_agrees_with_the_reference(curves, labels, column):
    """Both are means of five data sets, so their difference has sqrt(2) standard errors; five of these are allowed."""
    rows, wanted = curves[labels].rows, TABLE[:, 1 + column + (6 if labels == "random" else 0)]
    for row, value in zip(rows, wanted * (100 if column < 2 else 1), strict=True):
        found = getattr(row, NAMES[column])
        assert abs(found.value - value) <= 5 * math.sqrt(2) * found.stderr + PRINTED[column]


def test_informative_labels_are_supported(curves):
    found = curves["informative"]
    assert found.verdict == "supported"
    assert found.best.ratio_for_null.value == pytest.approx(-11, abs=3)
    assert 10 <= found.best.l2 <= 100
    assert 3 <= found.best_tested.l2 <= 100
    assert found.best_tested.test_loss.value < math.log(2) - 0.1


def test_random_labels_never_are(curves):
    found = curves["random"]
    assert found.verdict == "not supported"
    assert min(row.ratio_for_null.value for row in found.rows) > -1
    assert found.rows[-1].train_accuracy.value == 100  # memorised all the same
    for row in found.rows:
        assert abs(row.test_accuracy.value - 50) < 5 * 50 / math.sqrt(5 * 4000)


def test_newton_reached_the_minimum_everywhere(curves):
    assert max(row.newton_drop for curve in curves.values() for row in curve.rows) < 1e-10


def test_rows_do_not_depend_on_each_other():
    one = evidence_curve([3.0], seeds=2, samples=30, features=20, test=50)
    two = evidence_curve([300.0, 3.0], seeds=2, samples=30, features=20, test=50)
    assert two.rows[1].ratio_for_null.value == pytest.approx(one.rows[0].ratio_for_null.value, abs=1e-6)
    assert [row.l2 for row in two.rows] == [300.0, 3.0]
    later = evidence_curve([3.0], seeds=1, seed=1, samples=30, features=20, test=50).rows[0].occam.value
    first = evidence_curve([3.0], seeds=1, samples=30, features=20, test=50).rows[0].occam.value
    assert (first + later) / 2 == pytest.approx(one.rows[0].occam.value)


def test_data_are_standardised_before_they_are_labelled():
    x, y = gaussian_split("informative", 50, 7, split="train", seed=3)
    np.testing.assert_allclose(x[:, :7].mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose((x[:, :7] ** 2).mean(axis=0), 1)
    np.testing.assert_array_equal(x[:, 7], 1)
    np.testing.assert_array_equal(y, x[:, :7].sum(axis=1) > 0)
    same, coin = gaussian_split("random", 50, 7, split="train", seed=3)
    np.testing.assert_array_equal(same, x)
    assert 0 < coin.mean() < 1
    assert (coin != y).any()
    assert (gaussian_split("informative", 50, 7, split="test", seed=3)[0] != x).any()


def test_verdicts():
    def rows(*values):
        return [summary(1.0, [(50.0, 50.0, 0.6, 0.7, 1.0, v, 0.0) for v in values])]

    assert judge(rows(-5.0, -5.1, -4.9))[0] == "supported"
    assert judge(rows(0.1, -0.2, 0.3))[0] == "not supported"
    assert judge(rows(-5.0, 3.0, -9.0))[0] == "not resolvable"
    verdict, reason = judge(rows(-5.0))
    assert (verdict, "one data set" in reason) == ("not resolvable", True)


def test_says_what_it_found():
    text = str(evidence_curve([10.0], seeds=3, samples=30, features=20, test=50))
    assert text.startswith("informative labels: ")
    assert "l2 10: accuracy" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"l2s": []}, "there are 0 values in l2s and 5 seeds"),
        ({"l2s": [0.0]}, "l2 is 0.0; the evidence needs a prior"),
        ({"seeds": 0}, "1 values in l2s and 0 seeds"),
        ({"labels": "wrong"}, "labels is 'wrong'; choose one of informative, random"),
        ({"samples": 1}, "a split of 1 samples and 200 features cannot be standardised"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        evidence_curve(**{"l2s": [1.0], **change})
