"""What a check refuses and `check=False` lets pass."""

from gengap.core.errors import BadInput


class Refused(BadInput):
    """A loss that would give wrong numbers; the text says what `check=False` does.

    Attributes:
        why: what is wrong and what to do about it, for those who cannot give that argument.

    Args:
        why: the same.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}, or pass check=False to measure it all the same")
