"""What a dry run prints of the work that is left."""

from collections.abc import Sequence
from typing import Any


def work(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Give the rows of a forecast (`gengap.sweeps.forecast.Row`) for JSON."""
    return [{"what": r.what, "count": r.count, "seconds": r.seconds, "detail": r.detail} for r in rows]


def print_rows(rows: Sequence[Any]) -> None:
    """Print the rows of a forecast, one line each, with the time of one of them."""
    from gengap.report.numbers import seconds

    width = max(24, *(len(row.what) + 1 for row in rows))
    for row in rows:
        print(f"{row.what:<{width}}{row.count:>5} x  {seconds(row.seconds / max(row.count, 1)):>10}   {row.detail}")
