"""Oracle: a server of our own on this machine whose bytes and faults are known, and the kernel's own full disk."""

import errno
import gzip
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gengap.core.catalogue import DATA
from gengap.core.errors import BadInput, MissingData, OutOfSpace
from gengap.core.events import Message, Progress
from gengap.data import fetch as module
from gengap.data.fetch import SOURCES, Source, fetch
from gengap.data.idx import mnist

REAL = Path(os.environ.get("GENGAP_DATA", "nowhere"))
FILES = {"first.gz": gzip.compress(os.urandom(200_000)), "second.gz": b"second" * 50}


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def small(monkeypatch, shop):
    """A "mnist" of two files, on sale under /sets."""
    source = Source("http://127.0.0.1:1/", {name: md5(content) for name, content in FILES.items()})
    monkeypatch.setattr(module, "SOURCES", {"mnist": source})
    shop.goods = {f"/sets/{name}": content for name, content in FILES.items()}
    return shop


def written(path):
    """Which file it is, and when it was written last."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def messages(events):
    return [event.text for event in events if isinstance(event, Message)]


# files one by one


def test_files_arrive_whole_and_progress_is_told(tmp_path, small, listing):
    events = []
    found = fetch("mnist", tmp_path, base_url=small.url, listen=events.append)
    folder = tmp_path / "MNIST" / "raw"
    assert found == [folder / name for name in FILES]
    assert {path.name: path.read_bytes() for path in found} == FILES
    assert listing(tmp_path) == ["MNIST/raw/first.gz", "MNIST/raw/second.gz"]
    told = [event for event in events if isinstance(event, Progress) and event.what == "first.gz"]
    done = [event.done for event in told]
    assert done == sorted(set(done))
    assert len(done) > 1
    assert (told[-1].done, told[-1].total, told[-1].unit) == (len(FILES["first.gz"]) / 1e6,) * 2 + ("MB",)
    assert messages(events) == [f"{path} is ready" for path in found]
    assert all(headers["Accept-Encoding"] == "identity" for headers in small.headers)


def test_the_publishers_address_is_used_when_no_mirror_is_named(tmp_path, small, monkeypatch):
    source = Source(small.url + "/", module.SOURCES["mnist"].sums)
    monkeypatch.setattr(module, "SOURCES", {"mnist": source})
    assert len(fetch("mnist", tmp_path)) == 2


def test_files_already_there_are_left_alone_and_said_so(tmp_path, small):
    fetch("mnist", tmp_path, base_url=small.url)
    paths = [tmp_path / "MNIST" / "raw" / name for name in FILES]
    before = [written(path) for path in paths]
    small.asked.clear()
    events = []
    assert fetch("mnist", tmp_path, base_url=small.url, listen=events.append) == paths
    assert small.asked == []
    assert [written(path) for path in paths] == before
    assert messages(events) == [f"{path} is already there with the right checksum; left alone" for path in paths]


def test_only_what_is_missing_is_asked_for(tmp_path, small):
    fetch("mnist", tmp_path, base_url=small.url)
    (tmp_path / "MNIST" / "raw" / "first.gz").unlink()
    small.asked.clear()
    fetch("mnist", tmp_path, base_url=small.url)
    assert small.asked == ["/sets/first.gz"]


def test_a_damaged_file_is_replaced_with_a_warning(tmp_path, small):
    fetch("mnist", tmp_path, base_url=small.url)
    damaged = tmp_path / "MNIST" / "raw" / "second.gz"
    damaged.write_bytes(b"damaged")
    events = []
    fetch("mnist", tmp_path, base_url=small.url, listen=events.append)
    assert damaged.read_bytes() == FILES["second.gz"]
    assert [event.text for event in events if isinstance(event, Message) and event.warning] == [
        f"{damaged} has another checksum than published; it will be replaced"
    ]


def test_a_wrong_checksum_keeps_nothing_new_and_nothing_is_lost(tmp_path, small, refuses):
    old = tmp_path / "MNIST" / "raw" / "first.gz"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    small.goods["/sets/first.gz"] = b"<html>please log in</html>"
    refuses(f"got MD5 {md5(b'<html>please log in</html>')}, expected {md5(FILES['first.gz'])}")
    assert old.read_bytes() == b"old"


def test_a_cut_connection_says_how_much_arrived(tmp_path, small, refuses):
    small.goods["/sets/first.gz"] = lambda handler: small.send(handler, b"x" * 123_456, 200_000)
    refuses(r"cut after 123,456 of 200,000 bytes of .*first.gz; nothing was kept")


def test_a_connection_cut_before_the_first_byte(tmp_path, small, refuses):
    small.goods["/sets/first.gz"] = lambda handler: small.send(handler, b"", 1000)
    refuses("cut after 0 of 1,000 bytes")


def test_a_cut_that_an_older_requests_does_not_notice(tmp_path, small, monkeypatch, refuses):
    def careless(self, url, sink, pooch):
        sink.total = 1000
        sink.write(b"x" * 10)

    monkeypatch.setattr(module.HTTPDownloader, "__call__", careless)
    refuses("cut after 10 of 1,000 bytes")


def test_a_cut_chunked_answer_of_unknown_length(tmp_path, small, refuses):
    def chunked(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"100\r\n" + b"x" * 256 + b"\r\n100\r\n" + b"x" * 50)
        handler.close_connection = True

    small.goods["/sets/first.gz"] = chunked
    refuses(r"cut after \d+ bytes of")


def test_an_answer_without_a_length_is_taken(tmp_path, small):
    small.goods["/sets/second.gz"] = lambda handler: small.send(handler, FILES["second.gz"], None)
    events = []
    assert fetch("mnist", tmp_path, base_url=small.url, listen=events.append)[1].read_bytes() == FILES["second.gz"]
    assert {event.total for event in events if isinstance(event, Progress) and event.what == "second.gz"} == {None}


def test_what_arrived_before_a_failure_stays(tmp_path, small, listing):
    del small.goods["/sets/second.gz"]
    with pytest.raises(BadInput, match="404"):
        fetch("mnist", tmp_path, base_url=small.url)
    assert listing(tmp_path) == ["MNIST/raw/first.gz"]


def test_a_file_that_the_server_does_not_have(tmp_path, small, refuses):
    small.goods.clear()
    refuses(r"first.gz answered 404 Not Found: .*name a mirror")


def test_nobody_listens(tmp_path, small, refuses):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        small.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        refuses(r"cannot reach 127.0.0.1:\d+ for .*first.gz: Connection refused; check the network")


def test_a_host_that_does_not_exist(tmp_path, small, monkeypatch, refuses):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    small.url = "http://nowhere.invalid"
    refuses("cannot reach nowhere.invalid for .*: Name or service not known")


def test_a_server_that_does_not_answer(tmp_path, small, monkeypatch, refuses):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    small.goods["/sets/first.gz"] = lambda handler: small.closing.wait(10)
    refuses(r"cannot reach .*: no answer within 0.2 seconds")


def test_a_server_that_falls_silent(tmp_path, small, monkeypatch, refuses):
    def stalls(handler):
        small.send(handler, b"x" * 100, 1000)
        handler.wfile.flush()
        small.closing.wait(10)

    monkeypatch.setattr(module, "TIMEOUT", 1.0)
    small.goods["/sets/first.gz"] = stalls
    refuses(r"cut after \d+ of 1,000 bytes")


@pytest.mark.parametrize("url", ["nowhere", "ftp://127.0.0.1/", "http://"])
def test_an_address_that_is_none(tmp_path, small, url, refuses):
    small.url = url
    refuses("cannot reach")


# a full disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_as_an_error_of_the_write(tmp_path, small, monkeypatch, number, refuses):
    def full(self, chunk):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.Sink, "write", full)
    refuses(r"the disk is full: .*first.gz was not written", OutOfSpace)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")
def test_a_full_disk_as_the_kernel_tells_it(tmp_path, small, listing):
    part = tmp_path / "MNIST" / "raw" / f".first.gz.{os.getpid()}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(OutOfSpace, match="the disk is full") as caught:
        fetch("mnist", tmp_path, base_url=small.url)
    assert "--resume" not in str(caught.value)
    assert listing(tmp_path) == []


FULL = """
import sys
from pathlib import Path
from gengap.core.errors import OutOfSpace
from gengap.data import fetch as module
url, root = sys.argv[1:]
module.SOURCES = {"mnist": module.Source(url, {"first.gz": "0" * 32})}
try:
    module.fetch("mnist", root)
except OutOfSpace as error:
    print(error, [path.name for path in Path(root).rglob("*") if path.is_file()])
"""


def test_a_disk_that_really_fills(tmp_path, small):
    """A file system of 64 KiB in a name space of its own, where the system lets an ordinary user make one."""
    probe = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*probe, mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a small file system")
    script = tmp_path.parent / "full.py"
    script.write_text(FULL)
    run = f"{mount} && exec {sys.executable} {script} {small.url} {tmp_path}"
    found = subprocess.run([*probe, run], capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r"the disk is full: .*first.gz was not written.* \[\]\n", found.stdout), found


def test_a_root_that_is_a_file(tmp_path, small):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write .*choose a"):
        fetch("mnist", tmp_path / "file", base_url=small.url)


def test_a_folder_in_the_place_of_a_file(tmp_path, small, refuses):
    (tmp_path / "MNIST" / "raw" / "first.gz").mkdir(parents=True)
    refuses(r"cannot write .*first.gz: Is a directory")


# names


@pytest.mark.parametrize("name", [name for name, entry in DATA.items() if not entry.files])
def test_sets_that_need_no_download_say_so(tmp_path, name):
    with pytest.raises(BadInput, match=f"{name} needs no download"):
        fetch(name, tmp_path)


def test_other_names_are_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"no data set called 'svhn'; known are: digits, mnist"):
        fetch("svhn", tmp_path)
    with pytest.raises(MissingData, match="no data root was given"):
        fetch("mnist", None)
    monkeypatch.setattr(module, "SOURCES", {})
    with pytest.raises(BadInput, match=r"mnist cannot be downloaded from here; put its files into .*MNIST"):
        fetch("mnist", tmp_path)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_names_a_set_of_the_catalogue_and_proper_sums(name):
    source = SOURCES[name]
    assert DATA[name].files
    assert source.base_url.startswith("http")
    assert source.base_url.endswith("/")
    sums = [*source.sums.values(), *([source.archive[1]] if source.archive else [])]
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in sums)
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize("name", SOURCES)
def test_the_sums_are_those_of_the_real_files(name):
    files = [REAL / DATA[name].files / file for file in SOURCES[name].sums]
    if not all(file.is_file() for file in files):
        pytest.skip(f"GENGAP_DATA names no folder with all files of {name}")
    assert fetch(name, REAL, base_url="http://127.0.0.1:1") == files  # nobody listens there


@pytest.mark.skipif(not (REAL / "MNIST" / "raw").is_dir(), reason="GENGAP_DATA names no folder with MNIST")
def test_the_real_mnist_by_way_of_a_server_can_be_read(tmp_path, shop):
    for file in SOURCES["mnist"].sums:
        shop.goods[f"/sets/{file}"] = (REAL / "MNIST" / "raw" / file).read_bytes()
    fetch("mnist", tmp_path, base_url=shop.url)
    assert len(mnist(tmp_path).train[1]) == 60_000
