"""Textbook tests: hand-worked p-values, and agreement with scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from didgen.metrics.significance import (
    cohens_dz,
    cohens_g,
    discordant,
    holm,
    mcnemar_exact,
    paired_t,
    wilcoxon,
    wilson_interval,
)


def test_mcnemar_by_hand():
    # 5 gained, 0 lost: p = 2 * (1/2)^5.
    treatment = np.array([1] * 5 + [1] * 4 + [0] * 3, bool)
    control = np.array([0] * 5 + [1] * 4 + [0] * 3, bool)
    assert mcnemar_exact(treatment, control) == pytest.approx(1 / 16)


def test_mcnemar_ignores_who_is_first_and_is_one_without_discordant_pairs():
    a, b = np.random.default_rng(0).random((2, 50)) > 0.4
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)
    assert mcnemar_exact(a, a) == 1


def test_t_and_wilcoxon_agree_with_scipy():
    a, b = np.random.default_rng(0).normal(0.1, 1, (2, 30))
    assert paired_t(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert paired_t(a, a) == wilcoxon(a, a) == 1


def test_holm_by_hand():
    # Sorted .01 * 3, .02 * 2 = .04, .5 * 1.
    assert holm({"a": 0.02, "b": 0.5, "c": 0.01}) == pytest.approx({"a": 0.04, "b": 0.5, "c": 0.03})
    # .03 * 2 = .06 lifts the later .04 to .06.
    assert holm({"a": 0.04, "b": 0.03}) == pytest.approx({"a": 0.06, "b": 0.06})


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_and_holm_agree_with_statsmodels(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(60) > 0.3, rng.random(60) > 0.45
    gained, lost = discordant(a, b)
    table = [[int((a & b).sum()), gained], [lost, int((~a & ~b).sum())]]
    assert mcnemar_exact(a, b) == pytest.approx(mcnemar(table, exact=True).pvalue)
    p_values = rng.random(6) ** 2
    ours = list(holm(dict(enumerate(p_values))).values())
    assert ours == pytest.approx(multipletests(p_values, method="holm")[1])


def test_effect_sizes_by_hand():
    # 5 gained, 1 lost: 5/6 - 1/2.
    treatment, control = [1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1, 1]
    assert cohens_g(treatment, control) == pytest.approx(1 / 3)
    assert cohens_g(control, treatment) == pytest.approx(-1 / 3)
    assert cohens_g(control, control) == 0
    # Differences 1, 2, 3: mean 2, sd 1.
    assert cohens_dz(np.array([1.0, 2, 3]), np.zeros(3)) == pytest.approx(2)
    assert cohens_dz(np.ones(3), np.zeros(3)) is None
    assert cohens_dz(np.ones(3), np.ones(3)) == 0


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 10), (70, 100)])
def test_wilson_agrees_with_statsmodels(right, n):
    expected = proportion_confint(right, n, 0.05, method="wilson")
    assert wilson_interval(right / n, n, confidence=0.95) == pytest.approx(expected, abs=1e-9)


def test_wilson_refuses_what_is_no_share():
    for share, n in ((0.5, 0), (1.2, 5)):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            wilson_interval(share, n, confidence=0.95)
