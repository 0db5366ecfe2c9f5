"""What the numbers given to an optimizer may be."""

import math

from gengap.core.errors import BadInput


def check_positive(**values: float) -> None:
    """Refuse numbers that are not finite and above zero.

    Args:
        values: by the name the user knows.

    Raises:
        BadInput: one is zero, negative or not finite.
    """
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise BadInput(f"{name} is {value}; give a finite number above 0")


def check_not_negative(**values: float) -> None:
    """Refuse numbers that are negative or not finite.

    Args:
        values: by the name the user knows.

    Raises:
        BadInput: one is negative or not finite.
    """
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise BadInput(f"{name} is {value}; give a finite number, 0 or above")


def check_decay(**values: float) -> None:
    """Refuse coefficients of running averages that forget everything or nothing.

    Args:
        values: by the name the user knows.

    Raises:
        BadInput: one is outside [0, 1).
    """
    for name, value in values.items():
        if not 0 <= value < 1:
            raise BadInput(f"{name} is {value}; give a number from 0 up to, but not, 1")
