"""Where the files of a data set lie below the data root, and what to say when they do not."""

from pathlib import Path

from gengap.core.catalogue import DATA, find
from gengap.core.errors import BadInput, MissingData


def folder_of(name: str, root: str | Path | None) -> Path:
    """Give the folder of a data set, whether it exists or not.

    Args:
        name: the data set, as the catalogue calls it.
        root: the data root, or None when nobody named one.

    Returns:
        The folder that the catalogue's `files` names, below `root`.

    Raises:
        MissingData: no root was given.
    """
    layout = find("data set", DATA, name).files
    if root is None:
        raise MissingData(
            f"{name} is read from files and no data root was given: pass --data-root DIR (root= in Python) or set "
            f"GENGAP_DATA to the folder that holds {layout}; {_obtain(name, 'DIR')}"
        )
    return Path(root) / layout


def file_of(name: str, root: str | Path | None, *names: str) -> Path:
    """Give the first file of a data set that exists under one of its names.

    Args:
        name: the data set, as the catalogue calls it.
        root: the data root, or None when nobody named one.
        names: the names that the file may have, the preferred one first.

    Returns:
        The path of the file.

    Raises:
        MissingData: no root was given, or there is no such file.
    """
    folder = folder_of(name, root)
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise MissingData(
        f"there is no {' or '.join(names)} in {folder}: {_obtain(name, root)}, or point "
        f"--data-root or GENGAP_DATA to the folder that holds {DATA[name].files}"
    )


def _obtain(name: str, root: str | Path | None) -> str:
    """Say how to come by the files."""
    return DATA[name].obtain or f"run `gengap data fetch {name} --data-root {root}`"


def read(path: Path) -> bytes:
    """Read a whole file.

    Args:
        path: the file.

    Returns:
        Its bytes.

    Raises:
        MissingData: there is no such file.
        BadInput: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingData(f"there is no file {path}: check the path") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}; check the file and its permissions") from error
