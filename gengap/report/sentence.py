"""The answer in one sentence, and what could not be concluded."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.report.numbers import MINUS, fixed, interval, number, ratio_interval, significant

Json = Mapping[str, Any]
UNCONVERGED = 3.0  # a training loss so many times larger is worth a remark


def answer(small: Json, large: Json, difference: Json, verdicts: Mapping[str, str]) -> str:
    """Say whether the larger batch generalises worse, by how much, and whether its minimum is sharper.

    Args:
        small: the arm with the smaller batch.
        large: the arm with the larger batch.
        difference: estimates of the paired differences and ratios.
        verdicts: the word for each measure that was claimed about.

    Returns:
        One sentence with the numbers in it.
    """
    names = capital(large["label"]), small["label"]
    measure = "test_accuracy" if "test_accuracy" in verdicts else "test_loss"
    entry = difference[measure]
    if entry is None:
        return f"Nothing can be said of {names[1]} and {large['label']}: no seed finished with both; see what went wrong below."
    first = generalisation(names, entry, verdicts[measure], measure)
    second = minimum(difference["sharpness"]["ratio"], worse=first.endswith(")"))
    return f"{first}{second}."


def generalisation(names: tuple[str, str], entry: Json, word: str, measure: str) -> str:
    """Say the first half: the test accuracy, or the test loss where nothing counts right answers."""
    large, small = names
    estimate = entry["estimate"]
    value, n = estimate["value"], estimate["n"]
    numbers = f"{size(estimate)} {entry['unit']}"
    if n == 1:
        how = relation(value, measure)
        return f"{large} {how} {numbers} than {small} in the one seed that was run, which cannot tell a difference from chance"
    margin = f"95 % interval {interval(estimate)}, {n} paired seeds"
    if word == "insensitive":
        return (
            f"{large} tests the same as {small} for all practical purposes ({signed(value)} {entry['unit']}; {margin})"
        )
    if word == "not resolvable":
        what = "test accuracy" if measure == "test_accuracy" else "test loss"
        between = f"between {large.lower()} and {small}"
        return f"No difference in {what} {between} can be resolved ({signed(value)} {entry['unit']}; {margin})"
    flipped = {**estimate, "interval": absolute(estimate["interval"])}
    margin = f"95 % interval {interval(flipped)}, {n} paired seeds"
    if measure == "test_accuracy":
        return f"{large} tests {numbers} {'worse' if value < 0 else 'better'} than {small} ({margin})"
    return f"{large} has a test loss {numbers} {'higher' if value > 0 else 'lower'} than {small} ({margin})"


def minimum(ratio: Json | None, *, worse: bool) -> str:
    """Say the second half: how many times sharper the minimum of the larger batch is."""
    joint = " and its minimum" if worse else "; the minimum of the larger batch"
    if ratio is None:
        return ""
    value, ends = ratio["value"], ratio["interval"]
    if value is None:
        return ""
    sharper = f"{significant(value)} times sharper" if value >= 1 else f"{significant(1 / value)} times flatter"
    if ends is None:
        return f"{joint} is {sharper} there"
    low, high = (0.0 if ends[0] is None else ends[0]), ends[1]
    if low <= 1 and (high is None or high >= 1):
        margin = f"ratio {significant(value)}, {ratio_interval(ratio)}"
        return f"{joint} is neither sharper nor flatter as far as can be resolved ({margin})"
    shown = ratio if value >= 1 else {**ratio, "interval": [1 / (high or 1), 1 / low if low else None]}
    return f"{joint} is {sharper} ({ratio_interval(shown)})"


def relation(value: float, measure: str) -> str:
    """Choose the verb of a difference."""
    if measure == "test_accuracy":
        return "tests worse by" if value < 0 else "tests better by"
    return "has a higher test loss by" if value > 0 else "has a lower test loss by"


def unresolved(small: Json, large: Json, difference: Json, verdicts: Sequence[Json]) -> list[str]:
    """List what could not be concluded, and why.

    Args:
        small: the arm with the smaller batch.
        large: the arm with the larger batch.
        difference: estimates of the paired differences and ratios.
        verdicts: of the claims, as dicts.

    Returns:
        Sentences, each with something to do where there is something.
    """
    found = [
        f"{v['text']}: {v['verdict']} ({v['why']})." for v in verdicts if v["verdict"] in {"not resolvable", "not run"}
    ]
    found += convergence(small, large)
    found += search_quality(small, large)
    if large["sharpness"] and small["sharpness"] and difference["sharpness"]["ratio"] is None:
        found.append("The ratio of sharpness does not exist: a sharpness is zero.")
    return found


def convergence(small: Json, large: Json) -> list[str]:
    """Remark on arms that are not equally far trained: then a gap is not only one of generalisation."""
    losses = [arm["train_loss"]["value"] for arm in (small, large) if arm["train_loss"]]
    if len(losses) < 2 or None in losses or min(losses) <= 0:
        return []
    behind, ahead = (large, small) if losses[1] > losses[0] else (small, large)
    if max(losses) < UNCONVERGED * min(losses):
        return []
    text = (
        f"How much of the difference is optimisation: {behind['label']} ends with a training loss of {number(max(losses))} "
        f"against {number(min(losses))} for {ahead['label']}"
    )
    if behind["steps"] and ahead["steps"] and behind["steps"] < ahead["steps"]:
        text += f", after {behind['steps']:,} updates against {ahead['steps']:,}"
    return [f"{text}. A larger budget, or --converged, trains both to the end."]


def search_quality(small: Json, large: Json) -> list[str]:
    """Remark on searches for the sharpest direction that did not agree."""
    found = []
    for arm in (small, large):
        values = [run["sharpness"]["agreement"] for run in arm["runs"] if run["sharpness"]]
        low = [value for value in values if value is not None and value < 0.5]
        if low:
            found.append(
                f"How sharp {arm['label']} is at most: in {len(low)} of {len(values)} runs the second-best search found less "
                f"than half of the best one's rise; the number is a lower bound."
            )
    return found


def size(estimate: Json) -> str:
    """Write the size of a difference to the decimals its interval justifies."""
    return signed(abs(estimate["value"]), estimate).removeprefix("+")


def signed(value: float, estimate: Json | None = None) -> str:
    """Write a difference with its sign."""
    ends = estimate["interval"] if estimate else None
    width = (ends[1] - ends[0]) / 2 if ends and None not in ends else None
    text = number(abs(value), 2) if not width else fixed(abs(value), 2 if width < 0.1 else 1 if width < 10 else 0)
    return f"{MINUS if value < 0 else '+'}{text}"


def absolute(ends: Sequence[float | None] | None) -> list[float | None] | None:
    """Give an interval of the size of a difference whose sign is known."""
    if ends is None or None in ends:
        return None if ends is None else list(ends)
    low, high = sorted(abs(x) for x in ends if x is not None)
    return [low, high]


def capital(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]
