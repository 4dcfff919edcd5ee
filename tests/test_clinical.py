"""Clinical statistics against scikit-learn, statsmodels, the bootstrap, and an analysis of variance written here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from scipy.special import log_softmax, softmax
from sklearn import metrics as sklearn
from sklearn.preprocessing import label_binarize

from edgebench.analysis import agreement, delong, evaluation, mrmc, operating, resampling, scaling, shares, subgroups
from edgebench.schema import Interval

Array = NDArray[Any]


def cases(count: int = 200, skill: float = 1.0, seed: int = 0, ties: bool = False) -> tuple[Array, Array]:
    """Draw truth and scores."""
    draw = np.random.default_rng(seed)
    truth = draw.random(count) < 0.4
    scores = draw.normal(size=count) + skill * truth
    return truth, np.round(scores * 2) / 2 if ties else scores


def statsmodels(module: str) -> Any:
    return pytest.importorskip(f"statsmodels.stats.{module}", reason="statsmodels is not installed")


def ends(found: Interval | None) -> tuple[float, float]:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


# ---------------------------------------------------------------- operating points


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_are_those_of_scikit_learns_roc_curve(ties: bool) -> None:
    truth, scores = cases(ties=ties)
    false, true, thresholds = sklearn.roc_curve(truth, scores, drop_intermediate=False)
    for wanted in (0.5, 0.8, 0.95, 1.0):
        assert operating.at_sensitivity(truth, scores, wanted) == thresholds[np.argmax(true >= wanted)]
        assert operating.at_specificity(truth, scores, wanted) == thresholds[np.flatnonzero(1 - false >= wanted)[-1]]
    assert operating.youden(truth, scores) == thresholds[np.argmax(np.round(true - false, 12))]
    highest = np.where(truth, scores, scores + 9)
    assert operating.at_specificity(truth, highest, 1.0) == np.nextafter(highest.max(), np.inf)


@pytest.mark.parametrize("seed", range(3))
def test_performance_is_scikit_learns(seed: int) -> None:
    truth, scores = cases(seed=seed)
    decided = scores >= 0.3
    found = operating.performance(truth, decided)
    expected = {
        "sensitivity": sklearn.recall_score(truth, decided),
        "specificity": sklearn.recall_score(~truth, ~decided),
        "ppv": sklearn.precision_score(truth, decided),
        "npv": sklearn.precision_score(~truth, ~decided),
        "accuracy": sklearn.accuracy_score(truth, decided),
        "f1": sklearn.f1_score(truth, decided),
        "mcc": sklearn.matthews_corrcoef(truth, decided),
        "kappa": sklearn.cohen_kappa_score(truth, decided),
    }
    for name, value in expected.items():
        interval = getattr(found, name)
        assert interval.value == pytest.approx(value, abs=1e-12), name
        assert interval.low < value < interval.high, name
    tn, fp, fn, tp = sklearn.confusion_matrix(truth, decided).ravel()
    assert found.counts == operating.Counts(tp, fp, fn, tn)


def test_what_samples_do_not_define_has_no_value() -> None:
    truth, decided = np.array([True, True, True]), np.array([False, False, False])
    found = operating.performance(truth, decided)
    assert (found.specificity, found.ppv) == (None, None)
    assert found.sensitivity is not None
    assert found.sensitivity.value == 0
    assert found.mcc is not None
    assert found.mcc.value == sklearn.matthews_corrcoef(truth, decided) == 0
    assert operating.predictive(truth, decided, 0.1) == operating.Predictive(0.1, None, None)


def test_predictive_values_at_the_samples_own_prevalence_are_those_counted() -> None:
    truth, scores = cases()
    decided = scores >= 0.3
    counted, stated = operating.performance(truth, decided), operating.predictive(truth, decided, float(truth.mean()))
    for name in ("ppv", "npv"):
        assert getattr(stated, name).value == pytest.approx(getattr(counted, name).value)
    rare = operating.predictive(truth, decided, 0.01)
    assert rare.ppv is not None
    assert stated.ppv is not None
    assert rare.ppv.value < stated.ppv.value / 3
    assert ends(rare.ppv)[0] < rare.ppv.value < ends(rare.ppv)[1]


def test_net_benefit_is_what_is_counted() -> None:
    truth, scores = cases()
    likely = 1 / (1 + np.exp(-scores))
    thresholds = np.array([0.1, 0.3, 0.5, 0.9])
    benefit, every = operating.net_benefit(truth, likely, thresholds)
    for threshold, found, all_ in zip(thresholds, benefit, every, strict=True):
        _, fp, _, tp = sklearn.confusion_matrix(truth, likely >= threshold).ravel()
        weight = threshold / (1 - threshold)
        assert found == pytest.approx((tp - fp * weight) / len(truth))
        assert all_ == pytest.approx(truth.mean() - (1 - truth.mean()) * weight)


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (7, 20), (19, 20), (20, 20), (480, 500)])
def test_a_share_has_statsmodels_wilson_interval(hits: int, count: int) -> None:
    expected = statsmodels("proportion").proportion_confint(hits, count, method="wilson")
    assert ends(shares.share(np.arange(count) < hits)) == pytest.approx(expected, abs=1e-12)


def test_a_patient_with_copies_counts_once() -> None:
    """Each sample five times tells no more than once."""
    truth, scores = cases()
    units, copies = np.repeat(np.arange(len(truth)), 5), (np.repeat(truth, 5), np.repeat(scores, 5))
    for once, again in (
        (shares.share(truth), shares.share(copies[0], units)),
        (delong.area(truth, scores), delong.area(*copies, units)),
        (operating.performance(truth, scores > 0).f1, operating.performance(copies[0], copies[1] > 0, units).f1),
        (operating.performance(truth, scores > 0).kappa, operating.performance(copies[0], copies[1] > 0, units).kappa),
    ):
        assert again is not None
        assert once is not None
        assert again.value == pytest.approx(once.value)
        assert ends(again) == pytest.approx(ends(once), abs=0.012)
    alone = shares.share(copies[0])
    assert ends(alone)[1] - ends(alone)[0] < (ends(shares.share(truth))[1] - ends(shares.share(truth))[0]) / 2


def test_what_changes_between_files_is_mcnemars() -> None:
    draw = np.random.default_rng(1)
    first, second = draw.random(300) < 0.8, draw.random(300) < 0.85
    found = shares.changed(first, second)
    assert found is not None
    table = [[int((first & second).sum()), found.lost], [found.gained, int((~first & ~second).sum())]]
    assert found.mcnemar_p == pytest.approx(statsmodels("contingency_tables").mcnemar(table, exact=True).pvalue)
    assert found.difference.value == pytest.approx(second.mean() - first.mean())
    same = shares.changed(first, first)
    assert same is not None
    assert same.mcnemar_p == 1
    assert ends(same.difference)[0] < 0 < ends(same.difference)[1]


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize("quadratic", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_cohens_kappa_is_scikit_learns_and_its_interval_statsmodels(classes: int, quadratic: bool) -> None:
    draw = np.random.default_rng(classes)
    first = draw.integers(0, classes, 150)
    second = np.where(draw.random(150) < 0.6, first, draw.integers(0, classes, 150))
    found = agreement.cohen(agreement.table(first, second, classes), quadratic)
    assert found is not None
    weights = "quadratic" if quadratic else None
    assert found.value == pytest.approx(sklearn.cohen_kappa_score(first, second, weights=weights), abs=1e-12)
    rater = statsmodels("inter_rater")
    expected = rater.cohens_kappa(agreement.table(first, second, classes), wt="quadratic" if quadratic else None)
    assert found.value == pytest.approx(expected.kappa)
    assert found.error == pytest.approx(expected.std_kappa)
    assert ends(found.interval) == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=1e-6)


def test_kappa_by_the_bootstrap_is_near_the_formulas() -> None:
    truth, scores = cases(400)
    one, other = truth.astype(np.int64), (scores > 0.4).astype(np.int64)
    pairs = np.repeat(np.arange(200), 2)  # two samples of a patient, which are independent all the same
    formula, drawn = agreement.between(one, other, 2), agreement.between(one, other, 2, pairs)
    assert formula is not None
    assert drawn is not None
    assert drawn.value == pytest.approx(formula.value)
    assert ends(drawn) == pytest.approx(ends(formula), abs=0.03)


def test_fleiss_kappa_is_statsmodels() -> None:
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 3, 120)
    ratings = np.stack([np.where(draw.random(120) < 0.7, truth, draw.integers(0, 3, 120)) for _ in range(4)], axis=1)
    rater = statsmodels("inter_rater")
    counted, _ = rater.aggregate_raters(ratings)
    found = agreement.fleiss(ratings, 3)
    assert found is not None
    assert found.value == pytest.approx(rater.fleiss_kappa(counted))
    assert ends(found)[0] < found.value < ends(found)[1]


def test_kappa_of_all_alike_is_not_certain_and_of_one_class_not_defined() -> None:
    same = np.array([0, 1] * 10)
    found = agreement.between(same, same, 2)
    assert found is not None
    assert found.value == 1
    assert 0.5 < ends(found)[0] < 0.95
    assert agreement.between(np.zeros(9, np.int64), np.zeros(9, np.int64), 2) is None
    assert agreement.fleiss(np.zeros((9, 3), np.int64), 2) is None


def test_correlation_of_several_classes_is_scikit_learns() -> None:
    draw = np.random.default_rng(5)
    first, second = draw.integers(0, 4, 99), draw.integers(0, 4, 99)
    expected = sklearn.matthews_corrcoef(first, second)
    assert agreement.correlation(agreement.table(first, second, 4)) == pytest.approx(expected)


# ---------------------------------------------------------------- areas


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_scikit_learns_and_its_error_the_bootstraps(ties: bool) -> None:
    truth, scores = cases(ties=ties)
    found = delong.components(truth, [scores])
    assert found.areas[0] == pytest.approx(sklearn.roc_auc_score(truth, scores), abs=1e-15)
    draw = np.random.default_rng(0)
    positive, negative = scores[truth], scores[~truth]
    drawn = [
        _area(draw.choice(positive, len(positive)), draw.choice(negative, len(negative)))  # within each kind, as DeLong has it
        for _ in range(2000)
    ]
    assert float(np.sqrt(delong.covariance(truth, found)[0, 0])) == pytest.approx(np.std(drawn), rel=0.06)


def _area(positive: Array, negative: Array) -> float:
    above = positive[:, None] - negative
    return float((above > 0).mean() + (above == 0).mean() / 2)


def test_the_error_by_patient_is_the_bootstraps_by_patient() -> None:
    draw = np.random.default_rng(2)
    units = np.repeat(np.arange(80), 3)
    truth = (draw.random(80) < 0.5)[units] ^ (draw.random(240) < 0.1)
    scores = draw.normal(size=240) + 1.0 * draw.normal(size=80)[units] + truth
    found = delong.covariance(truth, delong.components(truth, [scores]), units)[0, 0]
    drawn = []
    for _ in range(1000):
        chosen = np.concatenate([np.flatnonzero(units == unit) for unit in draw.integers(0, 80, 80)])
        drawn.append(_area(scores[chosen][truth[chosen]], scores[chosen][~truth[chosen]]))
    assert np.sqrt(found) == pytest.approx(np.std(drawn), rel=0.1)
    assert found > 1.5 * delong.covariance(truth, delong.components(truth, [scores]))[0, 0]


def test_two_areas_differ_as_the_bootstrap_says() -> None:
    truth, first = cases(300)
    second = first + np.random.default_rng(9).normal(0, 0.8, 300)
    found = delong.compare(truth, first, second)
    assert found is not None
    assert found.difference.value == pytest.approx(sklearn.roc_auc_score(truth, second) - sklearn.roc_auc_score(truth, first))
    draw, drawn = np.random.default_rng(0), []
    kinds = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    for _ in range(1000):
        chosen = [draw.choice(kind, len(kind)) for kind in kinds]
        drawn.append(_area(second[chosen[0]], second[chosen[1]]) - _area(first[chosen[0]], first[chosen[1]]))
    low, high = ends(found.difference)
    assert (high - low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.08)
    assert found.p == pytest.approx(2 * scipy_stats.norm.sf(abs(found.difference.value) / ((high - low) / (2 * 1.959964))))
    same = delong.compare(truth, first, first * 3 + 1)
    assert same is not None
    assert (same.difference.value, same.p) == (0, 1)


def test_a_perfect_area_is_not_certain() -> None:
    truth = np.arange(50) >= 30
    found = delong.area(truth, np.arange(50.0))
    assert found is not None
    assert found.value == found.high == 1
    assert 0.8 < ends(found)[0] < 0.97
    worst = delong.area(truth, -np.arange(50.0))
    assert worst is not None
    assert worst.value == worst.low == 0
    assert ends(worst)[1] == pytest.approx(1 - ends(found)[0])
    assert delong.area(np.ones(5, bool), np.arange(5.0)) is None


def test_an_area_without_a_patient_is_that_of_the_rest() -> None:
    truth, scores = cases(60, ties=True)
    units = np.random.default_rng(0).integers(0, 25, 60)
    for groups in (None, resampling.numbered(units)):
        left = delong.without(truth, scores, groups)
        for unit, found in enumerate(left):
            rest = (np.arange(60) if groups is None else groups) != unit
            assert found == pytest.approx(sklearn.roc_auc_score(truth[rest], scores[rest]), abs=1e-12)


# ---------------------------------------------------------------- reader studies


def study(readers: int, seed: int, effect: float = 0.4) -> tuple[Array, Array]:
    """Draw a truth and ratings [readers, 2, cases] with variance of readers, of cases, and of both."""
    draw = np.random.default_rng(seed)
    truth = np.arange(90) < 40
    case, skill = draw.normal(size=90), draw.normal(0, 0.3, (readers, 2, 1))
    means = (1.0 + skill + effect * np.arange(2)[:, None]) * truth
    return truth, means + case + draw.normal(size=(readers, 2, 90))


def dbm_f(truth: Array, ratings: Array) -> tuple[float, float]:
    """Analyse jackknife pseudovalues by three-way analysis of variance (Dorfman, Berbaum, Metz 1992; Hillis et al. 2008).

    Written from its mean squares, each area counted pair by pair; returns F and the degrees of freedom of its denominator.
    """
    readers, ways, count = ratings.shape
    pseudo = np.empty((ways, readers, count))
    for way in range(ways):
        for reader in range(readers):
            scores = ratings[reader, way]
            whole = _area(scores[truth], scores[~truth])
            for case in range(count):
                rest = np.arange(count) != case
                pseudo[way, reader, case] = count * whole - (count - 1) * _area(scores[rest & truth], scores[rest & ~truth])
    grand = pseudo.mean()
    t, tr, tc, trc = (pseudo.mean(axis=axes, keepdims=True) for axes in ((1, 2), (2,), (1,), ()))
    r, c, rc = (pseudo.mean(axis=axes, keepdims=True) for axes in ((0, 2), (0, 1), (0,)))
    ms_t = readers * count * float(((t - grand) ** 2).sum()) / (ways - 1)
    ms_tr = count * float(((tr - t - r + grand) ** 2).sum()) / ((ways - 1) * (readers - 1))
    ms_tc = readers * float(((tc - t - c + grand) ** 2).sum()) / ((ways - 1) * (count - 1))
    rest_ = trc - tr - tc - rc + t + r + c - grand
    ms_trc = float((rest_**2).sum()) / ((ways - 1) * (readers - 1) * (count - 1))
    below = ms_tr + max(ms_tc - ms_trc, 0.0)
    return ms_t / below, below**2 * (ways - 1) * (readers - 1) / ms_tr**2


@pytest.mark.parametrize("seed", range(2))
def test_obuchowskis_and_rockettes_f_is_dorfmans_berbaums_and_metzs(seed: int) -> None:
    truth, ratings = study(4, seed)
    found = mrmc.analyse(*mrmc.jackknifed(truth, ratings))
    f, freedom = dbm_f(truth, ratings)
    assert found.f == pytest.approx(f, rel=1e-11)
    assert found.df == pytest.approx((1, freedom), rel=1e-10)
    assert found.p == pytest.approx(scipy_stats.f.sf(f, 1, freedom), rel=1e-9)
    low, high = ends(found.difference)
    assert found.p is not None
    assert ((low > 0) or (high < 0)) == (found.p < 0.05)  # the interval and the test are one
    assert found.difference.value == pytest.approx(np.diff(found.figures.mean(axis=0))[0])


def test_shares_are_jackknifed_as_they_are_counted_and_by_patient() -> None:
    draw = np.random.default_rng(0)
    hits, units = draw.random((3, 2, 40)) < 0.7, np.repeat(np.arange(20), 2)
    figures, left = mrmc.shares(hits.astype(float), units)
    assert figures == pytest.approx(hits.mean(axis=2))
    assert left[3] == pytest.approx(hits[:, :, units != 3].mean(axis=2))
    assert mrmc.analyse(figures, left).p is not None


def test_readers_who_do_not_vary_have_no_f() -> None:
    truth, ratings = study(3, 0)
    same = np.repeat(ratings[:1, :1], 2, axis=1).repeat(3, axis=0)
    found = mrmc.analyse(*mrmc.jackknifed(truth, same))
    assert (found.f, found.p, found.difference.value) == (None, None, 0)
    with pytest.raises(ValueError, match="two readers"):
        mrmc.analyse(*mrmc.jackknifed(truth, ratings[:1]))


# ---------------------------------------------------------------- probabilities


def classified(count: int = 400, heat: float = 2.5) -> tuple[Array, Array]:
    """Draw labels from logits that are then made too sure of themselves."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (count, 4))
    likely = softmax(logits, axis=1)
    labels = (likely.cumsum(axis=1) < draw.random((count, 1))).sum(axis=1)
    return labels.astype(np.int64), heat * logits


def test_a_temperature_is_found_and_is_the_likeliest() -> None:
    labels, logits = classified()
    found = scaling.fit("multi-class", labels, logits)
    assert found is not None
    assert found.value == pytest.approx(2.5, rel=0.15)
    assert found.before == pytest.approx(sklearn.log_loss(labels, softmax(logits, axis=1)))
    assert found.after == pytest.approx(sklearn.log_loss(labels, softmax(logits / found.value, axis=1)))
    for other in (0.98, 1.02):
        assert -log_softmax(logits / (found.value * other), axis=1)[np.arange(400), labels].mean() > found.after


def test_a_temperature_of_labels_by_themselves_is_found() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 1.5, (400, 3))
    labels = (draw.random((400, 3)) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    found = scaling.fit("multi-label", labels, 2 * logits)
    assert found is not None
    assert found.value == pytest.approx(2, rel=0.15)


def test_what_is_decided_too_well_has_no_finite_temperature() -> None:
    labels = np.arange(40) % 4
    assert scaling.fit("multi-class", labels, 5.0 * np.eye(4)[labels]) is None


def test_brier_is_scikit_learns_and_a_temperature_mends_calibration() -> None:
    labels, logits = classified()
    plain, scaled = (scaling.calibrated("multi-class", labels, logits, heat, None) for heat in (1.0, 2.5))
    assert plain is not None
    assert scaled is not None
    assert plain.brier is not None
    assert scaled.brier is not None
    errors = (softmax(logits, axis=1) - label_binarize(labels, classes=range(4))) ** 2
    assert plain.brier.value == pytest.approx(errors.sum(axis=1).mean())
    assert ends(plain.brier)[0] < plain.brier.value < ends(plain.brier)[1]
    assert plain.ece > plain.ece_by_chance
    assert scaled.ece < scaled.ece_by_chance
    assert scaled.brier.value < plain.brier.value
    binary = scaling.calibrated("binary", labels % 2, logits[:, :2], 1.0, None)
    assert binary is not None
    assert binary.brier is not None
    likely = softmax(logits[:, :2], axis=1)[:, 1]
    assert binary.brier.value == pytest.approx(sklearn.brier_score_loss(labels % 2, likely))


# ---------------------------------------------------------------- groups


def test_groups_that_differ_are_found_and_others_are_not() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 3, 600)
    alike = draw.random(600) < 0.8
    worse = np.where(groups == 2, draw.random(600) < 0.6, alike)
    found, none = subgroups.means(worse, groups, None), subgroups.means(alike, groups, None)
    assert found is not None
    assert none is not None
    assert found.p < 0.005
    assert none.p > 0.05
    assert found.largest_gap == pytest.approx(max(worse[groups == g].mean() for g in range(3)) - worse[groups == 2].mean())
    table = [[int((worse & (groups == g)).sum()), int((~worse & (groups == g)).sum())] for g in range(3)]
    assert found.p == pytest.approx(scipy_stats.chi2_contingency(table, correction=False).pvalue, abs=0.002)
    again = [[int((alike & (groups == g)).sum()), int((~alike & (groups == g)).sum())] for g in range(3)]
    assert none.p == pytest.approx(scipy_stats.chi2_contingency(again, correction=False).pvalue, abs=0.04)


def test_samples_of_one_patient_are_dealt_out_together() -> None:
    """Ten copies of each sample prove nothing that one does not."""
    draw = np.random.default_rng(4)
    groups, hits = draw.integers(0, 2, 60), draw.random(60) < 0.7
    hits[groups == 1] |= draw.random(int((groups == 1).sum())) < 0.4
    once = subgroups.means(hits, groups, None)
    units = np.repeat(np.arange(60), 10)
    copied = subgroups.means(np.repeat(hits, 10), np.repeat(groups, 10), units)
    believed = subgroups.means(np.repeat(hits, 10), np.repeat(groups, 10), None)
    assert once is not None
    assert copied is not None
    assert believed is not None
    assert copied.p == pytest.approx(once.p, abs=0.03)
    assert believed.p < once.p / 5


def test_a_permutations_p_is_fishers_mid_p() -> None:
    """Two groups of decisions: the share of group one's hits is hypergeometric, and as unlikely a share counts half."""
    groups, hits = np.repeat([0, 1], (18, 12)), np.zeros(30, bool)
    hits[[*range(6), *range(18, 27)]] = True
    found = subgroups.means(hits, groups, None, permutations=20_000)
    counts = np.arange(13)
    chance = scipy_stats.hypergeom(30, int(hits.sum()), 12).pmf(counts)
    apart = np.abs(counts / 12 - (hits.sum() - counts) / 18)
    seen = abs(9 / 12 - 6 / 18)
    exact = chance[apart > seen + 1e-9].sum() + chance[np.abs(apart - seen) < 1e-9].sum() / 2
    assert found is not None
    assert found.p == pytest.approx(exact, abs=0.003)
    assert abs(exact - scipy_stats.fisher_exact([[9, 3], [6, 12]]).pvalue) > 0.01


def test_areas_of_groups_are_compared_at_whatever_prevalence() -> None:
    draw = np.random.default_rng(0)
    groups = np.repeat([0, 1], 300)
    truth = draw.random(600) < np.where(groups == 0, 0.2, 0.6)
    scores = draw.normal(size=600) + np.where(groups == 0, 2.0, 0.6) * truth
    found = subgroups.areas(truth, scores, groups, None)
    alike = subgroups.areas(truth, draw.normal(size=600) + truth, groups, None)
    assert found is not None
    assert alike is not None
    assert found.p < 0.005
    assert alike.p > 0.05
    areas = [sklearn.roc_auc_score(truth[groups == g], scores[groups == g]) for g in range(2)]
    assert found.largest_gap == pytest.approx(areas[0] - areas[1])
    assert subgroups.areas(truth, scores, np.zeros(600, np.int64), None) is None


def test_holm_is_statsmodels() -> None:
    given = [0.01, 0.04, 0.03, 0.005, 0.6]
    expected = statsmodels("multitest").multipletests(given, method="holm")[1]
    assert [each for each in subgroups.holm([*given[:2], None, *given[2:]]) if each is not None] == pytest.approx(expected)


# ---------------------------------------------------------------- in the report


def test_a_reports_evaluation_has_kappa_mcc_and_areas_with_intervals() -> None:
    truth, scores = cases()
    both = np.stack([-scores / 2, scores / 2], axis=1)
    found = evaluation.evaluate("binary", ["well", "ill"], truth.astype(np.int64), both, "logits").statistics
    named = {line["what"]: line for line in found}
    assert list(named) == ["Cohen's κ of truth and decision", "Matthews' correlation (MCC)", "AUC of ill (DeLong)"]
    assert [line["value"] for line in found] == pytest.approx(
        [
            sklearn.cohen_kappa_score(truth, scores > 0),
            sklearn.matthews_corrcoef(truth, scores > 0),
            sklearn.roc_auc_score(truth, scores),
        ],
        abs=6e-6,
    )
    assert (named["AUC of ill (DeLong)"]["low"], named["AUC of ill (DeLong)"]["high"]) == pytest.approx(
        ends(delong.area(truth, scores)), abs=6e-6
    )
