"""From the measures of a checkpoint to the one document that the page, the terminal and --json show."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gengap.report.minimum.definitions import definitions
from gengap.report.minimum.rows import numbers_of
from gengap.report.minimum.sentence import answer, doubts, question

FORMAT = "gengap.measure/1"
READ = (
    "loss",
    "sharpness",
    "hessian",
    "noise",
    "distance",
    "landscape",
    "evidence",
    "reparametrisation",
)  # in this order
Json = dict[str, Any]


def minimum_document(
    *,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    measures: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
    environment: Mapping[str, Any],
    command: str = "",
    interrupted: str = "",
) -> Json:
    """Assemble everything that is shown of a checkpoint.

    Args:
        facts: of the problem and the checkpoint.
        settings: of the measurement.
        measures: taken or failed, each with its record as JSON values.
        plan: samples, forecast and what was left out.
        environment: machine and versions.
        command: the command line that made it.
        interrupted: where Ctrl-C ended it, or "".

    Returns:
        A JSON value; its form is described in docs/reference/json.md.
    """
    measures = sorted(measures, key=lambda measure: READ.index(measure["group"]))
    taken = [measure for measure in measures if measure["record"] is not None]
    return {
        "format": FORMAT,
        "title": question(facts),
        "sentence": answer(taken, facts),
        "interrupted": interrupted,
        "problem": dict(facts),
        "settings": dict(settings),
        "samples": plan["samples"],
        "numbers": [
            number.to_dict() | {"measure": measure["name"], **measure["conditions"]}
            for measure in taken
            for number in numbers_of(measure)
        ],
        "measures": [dict(measure) for measure in measures],
        "left_out": list(plan["left_out"]),
        "unresolved": [*([f"{capital(plan['remark'])}."] if plan["remark"] else []), *doubts(taken, settings)],
        "forecast": [dict(row) for row in plan["measures"]],
        "definitions": definitions([measure["name"] for measure in taken]),
        "command": command,
        "environment": dict(environment),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def capital(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]
