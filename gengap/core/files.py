"""Files appear whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gengap.core.errors import BadInput, OutOfSpace

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target` that takes its place when the block ends well.

    The bytes reach the disk before the name changes, so a kill at any moment leaves the old file or the new one.
    The temporary file is removed when the block fails.

    Args:
        target: the file to write; missing parent folders are made.

    Yields:
        The path to write to.

    Raises:
        OutOfSpace: the disk is full (also when the writer wraps the error in one of its own).
        BadInput: the folder cannot be written to.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except Exception as error:
        if is_disk_full(error):
            raise OutOfSpace(
                f"the disk is full: {target} was not written; free some space or choose another folder, "
                f"then run the same command with --resume"
            ) from error
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise BadInput(f"cannot write {target}: {error.strerror}; choose a folder that you may write to") from error
        raise
    finally:
        with suppress(OSError):
            part.unlink()


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one it was raised from, means that no space is left."""
    # safetensors and sqlite3 report it as an error type of their own, with the system's words in the text
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in NO_SPACE:
            return True
        text = str(seen).lower()
        if "no space left on device" in text or "disk is full" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with whole_file(target) as part:
        part.write_text(text, encoding="utf-8")
