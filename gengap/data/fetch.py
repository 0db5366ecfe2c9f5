"""Downloads: each file is checked, and appears whole under its name or not at all."""

import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pooch import HTTPDownloader
from requests import RequestException, Response
from urllib3.exceptions import IncompleteRead

from gengap.core.catalogue import DATA, find
from gengap.core.errors import BadInput, DamagedFile, OutOfSpace
from gengap.core.events import Listener, Message, Progress, silent
from gengap.core.files import whole_file
from gengap.data.root import folder_of

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Source:
    """Where a set is downloaded.

    Attributes:
        base_url: the address in which its files lie.
        sums: MD5 of each file below the set's folder.
        archive: (name, MD5) of the tar file that holds the set's folder, or None where the files lie there one by one.
    """

    base_url: str
    sums: Mapping[str, str]
    archive: tuple[str, str] | None = None


TORONTO = "https://www.cs.toronto.edu/~kriz/"

# MD5 is what the sets' publishers and torchvision name; it guards against accidents, not against an attacker
SOURCES: Mapping[str, Source] = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar-10": Source(
        TORONTO,
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    ),
    "cifar-100": Source(
        TORONTO,
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        ("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    ),
}


def fetch(name: str, root: str | Path, *, base_url: str | None = None, listen: Listener = silent) -> list[Path]:
    """Download a data set into torchvision's layout below `root`.

    A file that is there with the right checksum is left alone; one with another checksum is replaced once its
    successor has arrived. Interrupted, the next call goes on with the first file that is missing.

    Args:
        name: the data set, as the catalogue calls it.
        root: the data root; made when it is not there.
        base_url: a mirror to use instead of the publisher's address.
        listen: told how far each file is, and one sentence for each file left alone, replaced or written.

    Returns:
        The files of the set.

    Raises:
        BadInput: no such set, none to download, the server cannot be reached or does not have the file, the
            connection was cut, the checksum is wrong, or the folder cannot be written to.
        OutOfSpace: the disk is full; nothing was left half-written.
    """
    layout = find("data set", DATA, name).files
    if not layout:
        raise BadInput(f"{name} needs no download: it is made on the spot, and can be used as it is")
    if name not in SOURCES:
        how = f" ({DATA[name].obtain})" if DATA[name].obtain else ""
        raise BadInput(f"{name} cannot be downloaded from here; put its files into {Path(root) / layout}{how}")
    source, folder = SOURCES[name], folder_of(name, root)
    base = (base_url or source.base_url).rstrip("/")
    wanted = _wanted(folder, source.sums, listen)
    if wanted and source.archive is not None:
        _fetch_archive(f"{base}/{source.archive[0]}", source.archive, folder, wanted, listen)
    elif wanted:
        for file, want in wanted.items():
            _download(f"{base}/{file}", folder / file, want, listen)
    return [folder / file for file in source.sums]


def _wanted(folder: Path, sums: Mapping[str, str], listen: Listener) -> dict[str, str]:
    """Find the files that are not there as they should be."""
    wanted = {}
    for file, want in sums.items():
        if _is_there(folder / file, want):
            listen(Message(f"{folder / file} is already there with the right checksum; left alone"))
            continue
        if (folder / file).exists():
            listen(Message(f"{folder / file} has another checksum than published; it will be replaced", warning=True))
        wanted[file] = want
    return wanted


def _fetch_archive(
    url: str, archive: tuple[str, str], folder: Path, wanted: Mapping[str, str], listen: Listener
) -> None:
    """Download a tar file beside the folder, take the wanted files out, remove it again unless it was there before."""
    target, want = folder.parent / archive[0], archive[1]
    found = _is_there(target, want)
    if found:
        listen(Message(f"{target} is already there with the right checksum; its files are taken from it"))
    else:
        _download(url, target, want, listen)
    try:
        _extract(target, folder, wanted, listen)
    finally:
        if not found:
            target.unlink(missing_ok=True)


def _extract(archive: Path, folder: Path, wanted: Mapping[str, str], listen: Listener) -> None:
    """Take only the wanted regular files out, each to the name we choose: no path in the archive is followed."""
    try:
        with tarfile.open(archive) as tar:
            for file, want in wanted.items():
                member = tar.extractfile(f"{folder.name}/{file}")
                if member is None:
                    raise DamagedFile(f"{archive} holds {folder.name}/{file}, but not as a file; it was not taken out")
                with _whole(folder / file) as part:
                    with part.open("wb") as copy:
                        shutil.copyfileobj(member, copy)
                    _check(part, want, f"{folder.name}/{file} in {archive}")
                listen(Message(f"{folder / file} is ready"))
    except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
        reason = str(error).partition(":\n")[0]  # tarfile lists below what it tried
        raise DamagedFile(f"{archive} is a damaged archive ({reason}); nothing more was taken out of it") from error


def _download(url: str, target: Path, want: str, listen: Listener) -> None:
    """Download one file and check it before it takes its name."""
    with _whole(target) as part:
        with part.open("wb") as file:
            _transfer(url, Sink(file, what=target.name, listen=listen))
        _check(part, want, url)
    listen(Message(f"{target} is ready"))


def _transfer(url: str, sink: "Sink") -> None:
    """Move the bytes; a failure becomes one sentence."""
    opened: list[Response] = []  # pooch leaves the connection open when it fails
    downloader = HTTPDownloader(
        progressbar=sink,
        chunk_size=CHUNK,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # gzip on the way would change length and checksum
        hooks={"response": lambda response, **_: opened.append(response)},
    )
    try:
        downloader(url, sink, None)
    except (RequestException, ValueError) as error:
        raise BadInput(_what_failed(url, sink, error)) from error
    finally:
        for response in opened:
            response.close()
    if sink.total and sink.arrived != sink.total:  # before requests 2.32 a cut connection passed for the end
        raise BadInput(_cut(url, sink.arrived, sink.total))


def _what_failed(url: str, sink: "Sink", error: Exception) -> str:
    """Say what went wrong with a transfer, and what to do."""
    response = getattr(error, "response", None)
    if response is not None:
        return (
            f"{url} answered {response.status_code} {response.reason}: the file is not to be had there; "
            f"name a mirror, or copy the file into place by hand"
        )
    if sink.started:
        # urllib3 knows what arrived of the chunk that was never handed on
        known = [layer.partial for layer in _layers(error) if isinstance(layer, IncompleteRead)]
        return _cut(url, max([sink.arrived, *(n for n in known if isinstance(n, int))]), sink.total)
    host = urlsplit(url).netloc or url
    return f"cannot reach {host} for {url}: {_reason(error)}; check the network, or name a mirror"


def _cut(url: str, arrived: int, total: int) -> str:
    """Say how much arrived."""
    share = f"{arrived:,} of {total:,}" if total else f"{arrived:,}"
    return f"the connection was cut after {share} bytes of {url}; nothing was kept, run the same command again"


def _reason(error: BaseException) -> str:
    """Find the system's words below the layers of the libraries."""
    words = str(error)
    for layer in _layers(error):
        if isinstance(layer, TimeoutError) or "timed out" in str(layer):
            return f"no answer within {TIMEOUT:g} seconds"
        if isinstance(layer, OSError) and layer.strerror:
            words = layer.strerror
    return " ".join(words.split())


def _layers(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those it was raised from."""
    layer: BaseException | None = error
    while layer is not None:
        yield layer
        layer = layer.__cause__ or layer.__context__


class Sink:
    """What pooch writes into, and its progress bar: it counts what arrived and tells the listener."""

    def __init__(self, file: IO[bytes], *, what: str, listen: Listener) -> None:
        self.file, self.what, self.listen = file, what, listen
        self.arrived = 0
        self.expected: int | None = None

    @property
    def started(self) -> bool:
        """Whether the server's headers arrived."""
        return self.expected is not None

    @property
    def total(self) -> int:
        """Bytes that the server promised; 0 where it promised nothing."""
        return self.expected or 0

    @total.setter
    def total(self, value: int) -> None:
        self.expected = value

    def write(self, chunk: bytes) -> None:
        """Write and tell."""
        self.file.write(chunk)
        self.arrived += len(chunk)
        total = self.total / MEGABYTE if self.total else None
        self.listen(Progress(self.what, self.arrived / MEGABYTE, total, "MB"))

    def flush(self) -> None:
        """Do nothing: closing the file flushes it."""

    def update(self, amount: int) -> None:
        """Do nothing: pooch counts chunks, `write` counts bytes."""

    def reset(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the file belongs to who opened it."""


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Write a file whole or not at all, with sentences that fit a download."""
    try:
        with whole_file(target) as part:
            yield part
    except OutOfSpace as error:
        raise OutOfSpace(
            f"the disk is full: {target} was not written and nothing is left of it; free some space or choose "
            f"another --data-root, then run the same command again"
        ) from error
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror or error}; choose another --data-root") from error


def _check(part: Path, want: str, what: str) -> None:
    """Compare the checksum."""
    if (got := _md5(part)) != want:
        raise BadInput(
            f"wrong checksum for {what}: got MD5 {got}, expected {want}; nothing was kept, "
            f"run the same command again or name a mirror"
        )


def _is_there(path: Path, want: str) -> bool:
    """Tell whether a file exists with this checksum."""
    return path.is_file() and _md5(path) == want


def _md5(path: Path) -> str:
    """Compute the MD5 of a file."""
    new: Any = partial(hashlib.md5, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, new).hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
