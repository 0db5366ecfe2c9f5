"""The answer in one sentence, and what could not be concluded."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.report import numbers
from gengap.report.numbers import MINUS, interval, number, ratio_interval, significant

Json = Mapping[str, Any]
LAG = 0.1  # points between two ways of normalising that are worth a remark
FAR = 90.0  # percent of training samples; below, a remark
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
    second = minimum(difference["sharpness"]["ratio"])
    if not second:
        return f"{first.removesuffix(',')}."
    joint = " and its minimum" if first.startswith(names[0]) else f"; the minimum of {large['label']}"
    return f"{first}{joint} {second}."


def generalisation(names: tuple[str, str], entry: Json, word: str, measure: str) -> str:
    """Say the first half: the test accuracy, or the test loss where nothing counts right answers."""
    large, small = names
    estimate = entry["estimate"]
    value, n = estimate["value"], estimate["n"]
    amount = f"{size(estimate)} {entry['unit']}"
    if n == 1:
        return f"{large} {relation(value, amount, measure)} {small} in the only seed, which cannot be told from chance,"
    margin = f"95 % interval {interval(estimate)}, {n} paired seeds"
    if word == "insensitive":
        return f"{large} tests the same as {small} for all practical purposes ({signed(estimate)} {entry['unit']}; {margin})"
    if word == "not resolvable":
        what = "test accuracy" if measure == "test_accuracy" else "test loss"
        between = f"between {large.lower()} and {small}"
        return f"No difference in {what} {between} can be resolved ({signed(estimate)} {entry['unit']}; {margin})"
    flipped = {**estimate, "interval": absolute(estimate["interval"])}
    margin = f"95 % interval {interval(flipped)}, {n} paired seeds"
    return f"{large} {relation(value, amount, measure)} {small} ({margin})"


def relation(value: float, amount: str, measure: str) -> str:
    """Say how the large batch stands to the small one."""
    if value == 0:
        return "tests the same as" if measure == "test_accuracy" else "has the same test loss as"
    if measure == "test_accuracy":
        return f"tests {amount} {'worse' if value < 0 else 'better'} than"
    return f"has a test loss {amount} {'higher' if value > 0 else 'lower'} than"


def minimum(ratio: Json | None) -> str:
    """Say the second half: how many times sharper the minimum of the larger batch is; "" where that is not known."""
    if ratio is None or ratio["value"] is None:
        return ""
    value, ends = ratio["value"], ratio["interval"]
    sharper = f"is {significant(value)} times sharper" if value >= 1 else f"is {significant(1 / value)} times flatter"
    if ends is None:
        return sharper
    low, high = (0.0 if ends[0] is None else ends[0]), ends[1]
    if low <= 1 and (high is None or high >= 1):
        margin = f"ratio {significant(value)}, {ratio_interval(ratio)}"
        return f"is neither sharper nor flatter as far as can be resolved ({margin})"
    shown = ratio if value >= 1 else {**ratio, "interval": [1 / (high or 1), 1 / low if low else None]}
    return f"{sharper} ({ratio_interval(shown)})"


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
    found += lag(small, large)
    found += far_from_minimum(small, large)
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


def lag(small: Json, large: Json) -> list[str]:
    """Remark on running averages of batch norm that have not followed the weights."""
    found = []
    for arm in (small, large):
        pairs = [(run.get("test_accuracy"), (run.get("running") or {}).get("test_accuracy")) for run in arm["runs"]]
        known = [(ours, running) for ours, running in pairs if ours is not None and running is not None]
        if known and abs(sum(a - b for a, b in known)) / len(known) > LAG:
            ours, running = (sum(values) / len(known) for values in zip(*known, strict=True))
            found.append(
                f"What {arm['label']} would do in use: with the running averages of batch norm, which follow the weights "
                f"slowly, it tests {running:.2f} % and not {ours:.2f} %. The numbers above leave the averages out for both "
                f"batch sizes; --batch-norm running uses them for all measures."
            )
    return found


def far_from_minimum(small: Json, large: Json) -> list[str]:
    """Remark on arms whose training accuracy leaves open whether they have reached a minimum."""
    found = []
    for arm in (small, large):
        trained = arm.get("train_accuracy")
        if trained and trained["value"] is not None and trained["value"] < FAR:
            found.append(
                f"Whether {arm['label']} has reached a minimum at all: its training accuracy is {trained['value']:.0f} %."
            )
    return found


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
    """Write the size of a difference, without its sign, to the decimals its interval justifies."""
    return signed(estimate).lstrip(f"+{MINUS}")


def signed(estimate: Json) -> str:
    """Write a difference with its sign, as the table does."""
    return numbers.difference(estimate)


def absolute(ends: Sequence[float | None] | None) -> list[float | None] | None:
    """Give an interval of the size of a difference whose sign is known."""
    if ends is None or None in ends:
        return None if ends is None else list(ends)
    low, high = sorted(abs(x) for x in ends if x is not None)
    return [low, high]


def capital(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]
