"""Oracle: tar files packed by the test, on sale by a server on this machine."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from gengap.core.catalogue import DATA
from gengap.core.errors import DamagedFile, OutOfSpace
from gengap.core.events import Message
from gengap.data import fetch as module
from gengap.data.fetch import Source, fetch


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def messages(events):
    return [event.text for event in events if isinstance(event, Message)]


def tar_of(members):
    """Pack (name, bytes or TarInfo) pairs."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


PARTS = {"data_batch_1": os.urandom(70_000), "test_batch": b"test", "batches.meta": b"meta"}


def sell_archive(monkeypatch, shop, members=None, sums=None):
    """A "cifar-10" of three files in one archive, on sale under /sets."""
    folder = DATA["cifar-10"].files
    members = [(f"{folder}/{name}", content) for name, content in PARTS.items()] if members is None else members
    archive = tar_of(members)
    sums = {name: md5(content) for name, content in PARTS.items()} if sums is None else sums
    source = Source("http://127.0.0.1:1/", sums, ("cifar.tar.gz", md5(archive)))
    monkeypatch.setattr(module, "SOURCES", {"cifar-10": source})
    shop.goods = {"/sets/cifar.tar.gz": archive}
    return archive


def test_an_archive_is_unpacked_and_removed(tmp_path, shop, monkeypatch, listing):
    sell_archive(monkeypatch, shop)
    found = fetch("cifar-10", tmp_path, base_url=shop.url)
    assert {path.name: path.read_bytes() for path in found} == PARTS
    assert listing(tmp_path) == sorted(f"cifar-10-batches-py/{name}" for name in PARTS)
    shop.asked.clear()
    assert fetch("cifar-10", tmp_path, base_url=shop.url) == found
    assert shop.asked == []


def test_an_archive_already_there_is_used_and_kept(tmp_path, shop, monkeypatch, listing):
    (tmp_path / "cifar.tar.gz").write_bytes(sell_archive(monkeypatch, shop))
    events = []
    fetch("cifar-10", tmp_path, base_url=shop.url, listen=events.append)
    assert shop.asked == []
    assert "cifar.tar.gz" in listing(tmp_path)
    assert "cifar.tar.gz is already there" in messages(events)[0]


def test_only_missing_files_are_taken_out(tmp_path, shop, monkeypatch):
    sell_archive(monkeypatch, shop)
    found = fetch("cifar-10", tmp_path, base_url=shop.url)
    found[1].unlink()
    before = found[0].stat().st_mtime_ns
    fetch("cifar-10", tmp_path, base_url=shop.url)
    assert found[1].read_bytes() == PARTS["test_batch"]
    assert found[0].stat().st_mtime_ns == before


def test_an_archive_writes_nothing_but_the_files_of_the_set(tmp_path, shop, monkeypatch, listing):
    root = tmp_path / "root"
    members = [(f"cifar-10-batches-py/{name}", content) for name, content in PARTS.items()]
    hostile = [("../escaped", b"x"), (str(tmp_path / "absolute"), b"x"), ("cifar-10-batches-py/extra", b"x")]
    sell_archive(monkeypatch, shop, hostile + members)
    fetch("cifar-10", root, base_url=shop.url)
    assert listing(tmp_path) == sorted(f"root/cifar-10-batches-py/{name}" for name in PARTS)


def test_a_file_of_the_archive_with_another_sum(tmp_path, shop, monkeypatch, refuses):
    sell_archive(monkeypatch, shop, sums={"test_batch": "0" * 32})
    refuses(f"wrong checksum for .*test_batch in .*got MD5 {md5(b'test')}", name="cifar-10")


def test_an_archive_without_a_file_of_the_set(tmp_path, shop, monkeypatch, refuses):
    sell_archive(monkeypatch, shop, [("elsewhere/test_batch", b"test")])
    refuses("damaged archive .*data_batch_1", DamagedFile, name="cifar-10")


def test_a_folder_where_the_archive_should_hold_a_file(tmp_path, shop, monkeypatch, refuses):
    sell_archive(monkeypatch, shop)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    source = Source(shop.url, {"data_batch_1": "0" * 32}, ("cifar.tar.gz", md5(packed.getvalue())))
    monkeypatch.setattr(module, "SOURCES", {"cifar-10": source})
    shop.goods = {"/sets/cifar.tar.gz": packed.getvalue()}
    refuses("but not as a file", DamagedFile, name="cifar-10")


def test_an_archive_that_is_none(tmp_path, shop, monkeypatch, refuses):
    sell_archive(monkeypatch, shop)
    content = b"this is no tar file"
    source = Source(shop.url, {"test_batch": "0" * 32}, ("cifar.tar.gz", md5(content)))
    monkeypatch.setattr(module, "SOURCES", {"cifar-10": source})
    shop.goods = {"/sets/cifar.tar.gz": content}
    refuses("damaged archive", DamagedFile, name="cifar-10")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")
def test_a_disk_that_fills_while_unpacking(tmp_path, shop, monkeypatch, listing):
    sell_archive(monkeypatch, shop)
    part = tmp_path / "cifar-10-batches-py" / f".test_batch.{os.getpid()}.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(OutOfSpace, match=r"the disk is full: .*test_batch was not written"):
        fetch("cifar-10", tmp_path, base_url=shop.url)
    assert listing(tmp_path) == ["cifar-10-batches-py/data_batch_1"]
