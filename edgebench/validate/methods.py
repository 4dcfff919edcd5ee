"""What was done, in the words of a paper's methods section, and what every number means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgebench.analysis.evaluation import BINS
from edgebench.analysis.resampling import DRAWS
from edgebench.analysis.subgroups import FEW, FEW_OF_A_KIND, PERMUTATIONS
from edgebench.validate.options import ValidateOptions

Found = Mapping[str, Any]
BASIC = {
    "sensitivity": "Of the positive samples the share that is decided positive.",
    "specificity": "Of the negative samples the share that is decided negative.",
    "PPV, NPV": "Of the samples decided positive (negative) the share that is so, at the prevalence of these samples.",
    "F1": "2 TP / (2 TP + FP + FN).",
    "MCC": "Matthews' correlation coefficient of truth and decision (Matthews 1975; of several classes Gorodkin 2004).",
    "Cohen's κ": "Agreement beyond chance, (observed − chance) / (1 − chance) (Cohen 1960).",
    "AUC": "Area under the ROC curve: how often a positive sample has a higher score than a negative one, ties half.",
    "threshold": "The probability, as the file gives it, from which on a sample is decided positive.",
    "as it decides": "The file's own decision: the class with the highest score, or a label that is more likely than not.",
}


def definitions(found: Found) -> list[tuple[str, str]]:
    """List what every number is, with its source; of what was not computed nothing."""
    return [*BASIC.items(), *_more(found)]


CALIBRATION = {
    "ECE": f"Σ |bin| / n × |share right − mean confidence| over {BINS} bins of equal width (Naeini 2015).",
    "ECE by chance": "What 95 % of as many samples of perfectly calibrated probabilities stay under (Bröcker and Smith 2007).",
    "Brier's score": "Squared error of the probabilities: of the positive class of two, summed over several (Brier 1950).",
    "temperature": "What logits are divided by, fitted by maximum likelihood on the validation data (Guo 2017).",
}
WHERE_COMPUTED = {
    "area_tests": {"test of two AUCs": "DeLong's paired test on the same samples, two-sided; corrected after Holm 1979."},
    "changes": {"change of decisions": "McNemar's exact test (1947); interval of Bonett and Price (2012)."},
    "calibration": CALIBRATION,
    "predictive": {"PPV, NPV at a prevalence": "By Bayes' theorem; intervals on the logit scale (Mercaldo 2007)"},
    "decision_curves": {
        "net benefit": "Sensitivity × prevalence − (1 − specificity) × (1 − prevalence) × t / (1 − t) "
        "(Vickers and Elkin 2006), t being the probability from which on is acted."
    },
    "subgroups": {
        "few": f"Fewer than {FEW} samples, or {FEW_OF_A_KIND} of either kind: such a group's figures say little.",
        "p (Holm)": "Corrected for all tests of a file's groups, or of all changes (Holm 1979).",
    },
}
"""Of what is defined only where a part of the findings has something in it."""


def _more(found: Found) -> Iterator[tuple[str, str]]:
    yield "intervals of shares", f"95 %, Wilson 1927{_by_patients(found)}."
    yield "intervals of F1, MCC, Brier", f"95 %, percentiles of {DRAWS} bootstrap samples drawn by {_unit(found)} (Efron 1979)."
    kappa = "bootstrap by patient" if _clustered(found) else "Fleiss, Cohen and Everitt 1969"
    yield "interval of κ", f"95 %, {kappa}."
    clustered = "with Obuchowski's variance for several samples of a patient (1997), " if _clustered(found) else ""
    yield (
        "interval of AUC",
        f"95 %, DeLong, DeLong and Clarke-Pearson 1988, {clustered}on the logit scale; where no pair is in the wrong order "
        "Newcombe 2006, method 5.",
    )
    for part, terms in WHERE_COMPUTED.items():
        if found[part]:
            yield from terms.items()
    if found["subgroups"]:
        yield (
            "test of groups",
            f"Permutation of the groups among {_unit(found)}s, {PERMUTATIONS} times; the statistic is the weighted sum of "
            "squares between groups, and p the mid-p: permutations with just the data's statistic count half (Lancaster 1961).",
        )
    if found["readers"]:
        yield from _of_readers(found["readers"])


def _of_readers(found: Found) -> Iterator[tuple[str, str]]:
    if found["raters"]:
        yield "Fleiss' κ", f"Agreement of several raters beyond chance (Fleiss 1971); interval by {DRAWS} bootstrap samples."
    if found["studies"]:
        yield (
            "reader study",
            "Multi-reader multi-case analysis of variance after Obuchowski and Rockette (1995), readers and cases both random, "
            "with the jackknife's covariances and Hillis' degrees of freedom (2007).",
        )


def paragraph(found: Found, options: ValidateOptions) -> str:
    """Write the methods as a paper would."""
    return " ".join(_sentences(found, options))


def _sentences(found: Found, options: ValidateOptions) -> Iterator[str]:
    flow = found["flow"]
    who = f" of {flow['patients']} patients" if flow["patients"] else ""
    files, verb = " and ".join(each["name"] for each in found["files"]), "was" if len(found["files"]) == 1 else "were"
    yield f"{files} {verb} evaluated on {flow['judged']} test samples{who} of {found['dataset']}."
    yield " ".join(dict.fromkeys(f"{_capital(each['where'])}." for each in found["files"]))
    if any(line["threshold"] is not None for line in found["points"]):
        yield (
            f"Operating points were chosen on {flow['validation']} validation samples, none of which was used for the figures "
            f"given here: a sensitivity of {100 * options.sensitivity:g} %, a specificity of {100 * options.specificity:g} %, "
            "and Youden's index."
        )
    else:
        yield "No operating point was chosen, since there were no scores of validation data; the files' own decisions are rated."
    yield (
        f"Shares are given with Wilson's 95 % interval{_by_patients(found)}, areas under ROC curves with DeLong's on the "
        "logit scale."
    )
    if len(found["files"]) > 1:
        yield "Files were compared on the same samples, by DeLong's paired test and McNemar's exact test, with Holm's correction."
    if any(line["origin"] == "fitted" for line in found["calibration"]):
        yield "Probabilities were calibrated by temperature scaling, fitted on the validation samples."
    if found["subgroups"]:
        columns = ", ".join(dict.fromkeys(table["column"] for table in found["subgroups"]))
        yield f"Subgroups ({columns}) were compared by permutation tests (mid-p, Lancaster 1961) with Holm's correction."
    study = (found["readers"] or {}).get("studies")
    if study:
        yield (
            f"{_capital(_number(study[0]['readers']))} readers read {study[0]['cases']} cases without and with aid; the "
            "difference was analysed after Obuchowski and Rockette with Hillis' degrees of freedom."
        )
    yield "Computed by edgebench; p values are two-sided."


def _number(count: int) -> str:
    words: Sequence[str] = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clustered(found: Found) -> bool:
    """Return whether some patient has several samples."""
    flow = found["flow"]
    return bool(flow["patients"]) and flow["patients"] < flow["judged"]


def _by_patients(found: Found) -> str:
    return " of the effective number of samples, since patients have several (Rao and Scott 1992)" if _clustered(found) else ""


def _unit(found: Found) -> str:
    return "patient" if found["flow"]["patients"] else "sample"
