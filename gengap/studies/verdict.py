"""A verdict is computed from a claim and the runs, never typed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gengap.core.estimate import Estimate, mean, paired_difference, paired_ratio
from gengap.studies.study import Claim

RATIOS = {"sharpness", "distance"}  # positive, and spread over orders of magnitude: compared on the logarithm
Word = Literal["agrees", "same direction", "differs", "insensitive", "not resolvable", "not run"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One finished run as a claim sees it.

    Attributes:
        recipe: fields of its recipe.
        values: measured numbers by name; None where a number was not measured.
    """

    recipe: Mapping[str, Any]
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the runs say of a claim.

    Attributes:
        claim: the claim.
        word: the verdict.
        why: a sentence with the numbers it rests on.
        ours: our estimate: of the cell, or of the paired difference or ratio of two cells; None where there were no runs.
    """

    claim: Claim
    word: Word
    why: str
    ours: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "text": self.claim.text or describe(self.claim),
            "measure": self.claim.measure,
            "source": self.claim.source,
            "published": self.claim.paper.model_dump() if self.claim.paper else None,
            "ours": self.ours.to_dict() if self.ours else None,
            "verdict": self.word,
            "why": self.why,
        }


def describe(claim: Claim) -> str:
    """Say a claim in words."""
    if claim.compare and claim.expect:
        field, (first, second) = next(iter(claim.compare.items()))
        return f"{claim.measure}: {field} {first} {claim.expect[6]} {field} {second}"
    where = ", ".join(f"{field} {value}" for field, value in (claim.where or {}).items())
    return f"{claim.measure} at {where} is {claim.paper.mean if claim.paper else '?'}"


def judge(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    """Decide a claim.

    Args:
        claim: what is said.
        cells: all finished runs of the study.

    Returns:
        For two cells: "agrees" where the 95 % interval of the paired difference (of sharpness and distance: of the
        paired ratio) lies on the claimed side of zero (of one), "differs" where it lies on the other, "insensitive"
        where it lies within the claim's tolerance of zero, else "not resolvable". For a published number: "agrees"
        where the two means are within the sum of both spreads, else "differs". "not run" where runs are missing.
    """
    return judge_pair(claim, cells) if claim.compare else judge_number(claim, cells)


def judge_number(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    """Decide whether a cell's mean is the published one."""
    values = [
        v for cell in cells if matches(cell, claim.where or {}) if (v := cell.values.get(claim.measure)) is not None
    ]
    if not values or claim.paper is None:
        return Verdict(claim, "not run", "no finished run of this cell", None)
    ours = mean(values)
    room = (ours.stdev or 0.0) + (claim.paper.spread or 0.0) + claim.tolerance
    word: Word = "agrees" if abs(ours.value - claim.paper.mean) <= room else "differs"
    return Verdict(claim, word, f"ours {ours}, published {claim.paper.mean:.4g} ± {claim.paper.spread or 0:.2g}", ours)


def judge_pair(claim: Claim, cells: Sequence[Cell]) -> Verdict:
    """Decide whether one cell is above the other, over pairs that share their seed."""
    field, (first, second) = next(iter((claim.compare or {}).items()))
    pairs = paired(cells, field, first, second, claim.measure)
    if not pairs:
        return Verdict(claim, "not run", "no seed has finished both runs", None)
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    ratio = paired_ratio(a, b) if claim.measure in RATIOS else None
    ours, equal, what = (ratio, 1.0, "second / first") if ratio else (paired_difference(a, b), 0.0, "second - first")
    if ours.interval is None:
        return Verdict(claim, "not resolvable", "one seed cannot say how much seeds differ; run at least two", ours)
    low, high = ours.interval
    why = f"{what} is {ours.value:.3g}, 95 % interval {low:.3g} to {high:.3g}, {len(pairs)} paired seeds"
    if not ratio and max(abs(low), abs(high)) <= claim.tolerance:
        return Verdict(claim, "insensitive", f"{why}; differences up to {claim.tolerance:g} do not matter", ours)
    if not (low > equal or high < equal):  # an interval that is not finite resolves nothing either
        return Verdict(claim, "not resolvable", why, ours)
    falls = high < equal
    return Verdict(claim, "agrees" if falls == (claim.expect == "first > second") else "differs", why, ours)


def paired(cells: Sequence[Cell], field: str, first: Any, second: Any, measure: str) -> list[tuple[float, float]]:
    """Give the values of two cells for every pair of runs that differ in `field` alone."""
    found: dict[str, dict[int, float]] = {}
    for cell in cells:
        value = cell.values.get(measure)
        rest = json.dumps({k: v for k, v in cell.recipe.items() if k != field}, sort_keys=True)
        for i, wanted in enumerate((first, second)):
            if value is not None and cell.recipe.get(field) == wanted:
                found.setdefault(rest, {})[i] = value
    return [(pair[0], pair[1]) for _, pair in sorted(found.items()) if len(pair) == 2]


def matches(cell: Cell, where: Mapping[str, Any]) -> bool:
    """Tell whether a run is of a cell."""
    return all(cell.recipe.get(field) == value for field, value in where.items())
