"""Oracle: the bytes on the disk before and after; a real full device (/dev/full) and a real kill."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from gengap.core import files
from gengap.core.errors import BadInput, OutOfSpace
from gengap.core.files import is_disk_full, whole_file, write_text


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "there" / "report.html"
    write_text(path, "old")
    return path


def unchanged(target):
    return target.read_text(encoding="utf-8") == "old" and list(target.parent.iterdir()) == [target]


def test_a_new_file_in_a_new_folder(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "Größe ∇L")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "Größe ∇L".encode()
    assert [p.name for p in (tmp_path / "a/b").iterdir()] == ["c.txt"]


def test_the_new_takes_the_place_of_the_old(target):
    with whole_file(target) as part:
        part.write_text("new", encoding="utf-8")
        assert target.read_text(encoding="utf-8") == "old"
        assert part.parent == target.parent
    assert target.read_text(encoding="utf-8") == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt(), ValueError("no")], ids=repr)
def test_the_old_survives_a_writer_that_fails(target, error):
    def write():
        with whole_file(target) as part:
            part.write_text("ne", encoding="utf-8")
            raise error

    with pytest.raises(type(error)):
        write()
    assert unchanged(target)


def test_a_writer_that_writes_nothing(target):
    with pytest.raises(FileNotFoundError), whole_file(target):
        pass
    assert unchanged(target)


def refuses(number):
    def fsync(_):
        raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_when_the_bytes_go_down(target, monkeypatch, number):
    monkeypatch.setattr(files.os, "fsync", refuses(number))
    with pytest.raises(OutOfSpace) as caught:
        write_text(target, "new")
    text = str(caught.value)
    assert text.startswith(f"the disk is full: {target} was not written; free some space")
    assert "\n" not in text
    assert unchanged(target)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_a_device_that_is_really_full(target):
    def write():
        with whole_file(target) as part:
            part.write_text("ne", encoding="utf-8")
            Path("/dev/full").write_bytes(b"w")

    with pytest.raises(OutOfSpace, match="the disk is full"):
        write()
    assert unchanged(target)


def test_other_errors_of_the_system_pass(target, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", refuses(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as caught:
        write_text(target, "new")
    assert not isinstance(caught.value, OutOfSpace)
    assert unchanged(target)


def test_a_disk_full_is_found_behind_other_errors():
    full = OSError(errno.ENOSPC, "No space left on device")

    def chain(how):
        try:
            try:
                raise full
            except OSError as error:
                if how == "cause":
                    raise RuntimeError("writer") from error
                raise RuntimeError("writer")  # noqa: B904 - the context is what is tested
        except RuntimeError as error:
            return error

    outer = ValueError("again")
    outer.__cause__ = chain("context")
    for error in (full, chain("cause"), chain("context"), outer):
        assert is_disk_full(error)
    assert is_disk_full(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert is_disk_full(RuntimeError("database or disk is full"))
    for error in (RuntimeError("space"), OSError(errno.EIO, "io"), ValueError()):
        assert not is_disk_full(error)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    for path in (tmp_path / "taken" / "x.txt", tmp_path / "taken" / "deeper" / "x.txt"):
        with pytest.raises(BadInput, match=r"cannot write .*choose a folder that you may write to"):
            write_text(path, "new")


def test_a_file_that_is_a_folder(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInput, match=f"cannot write {tmp_path / 'taken'}: Is a directory"):
        write_text(tmp_path / "taken", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS], ids=["permission", "read-only"])
def test_a_folder_one_may_not_write_to_says_so(target, monkeypatch, number):
    monkeypatch.setattr(files.os, "fsync", refuses(number))
    with pytest.raises(BadInput) as caught:
        write_text(target, "new")
    assert str(caught.value).startswith(f"cannot write {target}: {os.strerror(number)}")
    assert unchanged(target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(target):
    target.parent.chmod(0o500)
    try:
        with pytest.raises(BadInput, match=r"cannot write .*: Permission denied"):
            write_text(target, "new")
    finally:
        target.parent.chmod(0o700)
    assert unchanged(target)


WRITER = """
import sys
from pathlib import Path
from gengap.core.files import write_text
for i in range(10**6):
    write_text(Path(sys.argv[1]), "ab"[i % 2] * 300_000)
    if i == 3:
        print("writing", flush=True)
"""


def test_a_kill_leaves_the_old_or_the_new(tmp_path):
    target = tmp_path / "file.txt"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert target.read_text(encoding="utf-8") in {"a" * 300_000, "b" * 300_000}
