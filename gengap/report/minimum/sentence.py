"""The answer in one sentence, and the doubts a reader should have about it."""

from collections.abc import Mapping, Sequence
from typing import Any

from gengap.report.minimum.rows import Number, by_key
from gengap.report.numbers import number, significant, tick, whole

Measures = Sequence[Mapping[str, Any]]
FULL = 2  # main numbers that make a sentence
FEW_AGREE = 0.5  # of two searches for the highest point of the box
SADDLE = 0.05  # downward curvature over the top curvature that is worth a remark
FAR_FROM_FLAT = 0.1  # loss that one step at the largest stable learning rate would still take off, relative to 1 + loss
UNTRAINED = 90.0  # percent of training samples


def answer(measures: Measures, facts: Mapping[str, Any]) -> str:
    """Say the main numbers of a minimum.

    Args:
        measures: that were taken, as the document holds them.
        facts: of the checkpoint.

    Returns:
        One sentence with the numbers in it.
    """
    found = by_key(measures)
    main = [climb(found), curvature(found), noise(found), barrier(found)]
    said = [part for part in main if part]
    if len(said) < FULL:  # there is room for what otherwise is left to the table
        said += [part for part in (place(found), scores(found)) if part]
    said = said or [part for part in (surroundings(found),) if part]
    if not measures:
        return "Nothing could be measured of this checkpoint; the reasons are below."
    if not said:
        return "What was measured of this minimum is in the pictures and the table below."
    part = share(facts)
    first, *rest = said
    begin = f"Along {part}, this minimum's {first}" if part else f"This minimum's {first}"
    if not rest:
        return f"{begin}."
    middle = "".join(f", its {clause}" for clause in rest[:-1])
    return f"{begin}{middle}, and its {rest[-1]}."


def share(facts: Mapping[str, Any]) -> str:
    """Say how many of the weights were measured, where not all were."""
    measured, weights = facts.get("measured", facts["parameters"]), facts["parameters"]
    return "" if measured == weights else f"{whole(measured)} of {whole(weights)} weights"


def surroundings(found: Mapping[str, Number]) -> str:
    """Say how far the loss rises along a random line or plane; where there is more to say this is left to the table."""
    for key, what in (("line_rise", "line"), ("plane_rise", "plane")):
        one = found.get(key)
        if one is not None and one.value is not None:
            return f"training loss rises by {significant(one.value)} nats on a random {what} through it"
    return ""


def climb(found: Mapping[str, Number]) -> str:
    """Say the sharpness of the largest box."""
    boxes = [one for key, one in found.items() if key.startswith("sharpness_") and one.value is not None]
    if not boxes:
        return ""
    one = boxes[-1]
    radius = one.key.removeprefix("sharpness_")
    return f"loss climbs by {significant(one.value or 0.0)} % within the box of radius {tick(float(radius))}"


def curvature(found: Mapping[str, Number]) -> str:
    """Say the top curvature, and the learning rate it allows."""
    top, lr = found.get("top_eigenvalue_1"), found.get("max_stable_lr")
    if top is None or top.value is None:
        return ""
    stable = f" (stable up to lr {significant(lr.value)})" if lr and lr.value is not None else ""
    return f"top curvature is {significant(top.value)}{stable}"


def noise(found: Mapping[str, Number]) -> str:
    """Say the noise scale."""
    scale, least = found.get("noise_scale"), found.get("noise_scale_at_least")
    if scale is not None and scale.value is not None:
        return f"noise scale is {significant(scale.value)} samples"
    return "" if least is None or least.value is None else f"noise scale is at least {significant(least.value)} samples"


def place(found: Mapping[str, Number]) -> str:
    """Say how far it is from the start."""
    one = found.get("distance")
    return "" if one is None or one.value is None else f"distance from the start is {number(one.value)}"


def scores(found: Mapping[str, Number]) -> str:
    """Say loss and accuracy."""
    loss, right = found.get("test_loss"), found.get("test_accuracy")
    if loss is None:
        return ""
    accuracy = "" if right is None or right.value is None else f" with {right.value:.2f} % right"
    return f"test loss is {significant(loss.value or 0.0)}{accuracy}"


def barrier(found: Mapping[str, Number]) -> str:
    """Say the barrier to the second checkpoint."""
    one = found.get("barrier_train")
    return "" if one is None else f"barrier to the second checkpoint is {significant(one.value or 0.0)} nats"


def doubts(measures: Measures, settings: Mapping[str, Any]) -> list[str]:
    """List what a reader should not conclude.

    Args:
        measures: that were taken.
        settings: of the measurement.

    Returns:
        Sentences.
    """
    found = by_key(measures)
    return [*trained(found), *saddle(found), *agreement(measures), *unresolved(measures), *frozen(measures, settings)]


def trained(found: Mapping[str, Number]) -> list[str]:
    """Doubt that training has come to its end."""
    right, slope, top = found.get("train_accuracy"), found.get("gradient_norm"), found.get("top_eigenvalue_1")
    said = []
    if right and right.value is not None and right.value < UNTRAINED:
        said.append(f"Whether training has reached a minimum at all: its training accuracy is {right.value:.1f} %.")
    if slope and top and slope.value and top.value and top.value > 0:
        fall = slope.value**2 / (2 * top.value)
        loss = found["train_loss"].value or 0.0
        if fall > FAR_FROM_FLAT * (1 + loss):
            said.append(
                f"Whether this is a minimum: the gradient is {number(slope.value)} long, so that one step at the inverse of the "
                f"top curvature would take about {number(fall)} nats off the loss."
            )
    return said


def saddle(found: Mapping[str, Number]) -> list[str]:
    """Doubt that the loss rises in every direction."""
    top, low = found.get("top_eigenvalue_1"), found.get("bottom_eigenvalue_1")
    if not (top and low and top.value and low.value) or low.value > -SADDLE * top.value:
        return []
    return [
        f"Whether this is a minimum: along one direction the loss curves downwards ({number(low.value)} against "
        f"{number(top.value)} at the top)."
    ]


def agreement(measures: Measures) -> list[str]:
    """Doubt a search for the highest point whose second-best start found far less."""
    said = []
    for measure in measures:
        if measure["name"] == "sharpness" and measure["record"]:
            for one in measure["record"]["records"]:
                if one["agreement"] is not None and one["agreement"] < FEW_AGREE:
                    said.append(
                        f"How sharp it is at most at radius {tick(one['radius'])}: the second-best search found less than half "
                        f"of the best one's rise; the number is a lower bound."
                    )
    return said


def unresolved(measures: Measures) -> list[str]:
    """Say why a noise scale has no value."""
    words = {"noise_scale": "the noise scale", "curvature_noise_scale": "the curvature-weighted noise scale"}
    return [
        f"How large {words[measure['name']]} is: {measure['record']['reason']}."
        for measure in measures
        if measure["name"] in words and measure["record"] and measure["record"]["reason"]
    ]


def frozen(measures: Measures, settings: Mapping[str, Any]) -> list[str]:
    """Say that statistics of batch norm decide a sharpness."""
    modes = {m["conditions"]["batch_norm"] for m in measures if m["group"] == "sharpness" and m["record"]}
    if not modes & {"running", "batch"}:
        return []
    other = {"running": "batch", "batch": "running"}[settings["batch_norm"]]
    return [
        f"How sharp it is with the other statistics of batch norm, which can change the number a hundredfold: these are those "
        f"of mode {settings['batch_norm']}; --batch-norm {other} gives the others, and only numbers of one mode compare."
    ]


def question(facts: Mapping[str, Any]) -> str:
    """Give the title of the report."""
    name = facts["network"] if facts["network"] == facts["data"] else f"{facts['network']} on {facts['data']}"
    return f"What kind of minimum is this? {name}"


def context(document: Mapping[str, Any]) -> str:
    """Say in one line what was measured."""
    facts, used = document["problem"], document["samples"]
    of = "" if used == facts["train_samples"] else f" of {whole(facts['train_samples'])}"
    patterns = ", ".join(document["settings"].get("params") or ())
    weights = share(facts) or f"{whole(facts['parameters'])} weights"
    said = [
        str(facts["checkpoint"]),
        f"{weights}{f' ({patterns})' if patterns else ''}, {facts['dtype']}",
        f"{whole(used)}{of} training samples",
    ]
    if facts["has_batch_norm"]:
        said.append(f"batch norm: {document['settings']['batch_norm']} statistics")
    return " · ".join([*said, str(document["created"])[:10]])
