"""What can go wrong on the user's side, each as one sentence that says what to do."""


class GengapError(Exception):
    """Base of the errors that the command line prints as one sentence instead of a traceback."""

    exit_code = 2


class BadInput(GengapError, ValueError):  # noqa: N818 - reads as what it is
    """An argument, file or recipe that cannot be used; the text names the value and what to do."""


class MissingData(GengapError, FileNotFoundError):  # noqa: N818
    """A data set is not where it was looked for; the text says how to get it."""


class DamagedFile(BadInput):
    """A file exists but its contents are not what its format promises."""


class OutOfSpace(GengapError, OSError):  # noqa: N818
    """The disk is full; nothing was left half-written."""


class Interrupted(GengapError):  # noqa: N818
    """The user pressed Ctrl-C; what was finished is kept."""

    exit_code = 130


class LostRank(GengapError, ConnectionError):  # noqa: N818
    """One of several processes that train together is gone; what was finished is kept."""

    exit_code = 1
