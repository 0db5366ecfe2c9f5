"""Whether a record that was read from a file is one that this version can show."""

from collections.abc import Mapping
from typing import Any

from gengap.report.minimum import tables
from gengap.report.minimum.csv_files import csv_tables
from gengap.report.minimum.document import minimum_document
from gengap.report.minimum.figures import figures

NO_PLAN: Mapping[str, Any] = {"samples": 0, "measures": (), "left_out": (), "remark": ""}


def can_be_shown(measure: Mapping[str, Any], *, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Try to make a document, tables and figures of one measure, as another version of its record would not allow.

    Args:
        measure: with its record, in the form of `measures` of a document.
        facts: of the problem and the checkpoint.
        settings: of the measurement.

    Returns:
        Whether that can be done.
    """
    try:
        document = minimum_document(facts=facts, settings=settings, measures=[measure], plan=NO_PLAN, environment={})
        tables.blocks(document)
        csv_tables(document)
        figures(document)
    except (AttributeError, LookupError, TypeError, ValueError):
        return False
    return True
