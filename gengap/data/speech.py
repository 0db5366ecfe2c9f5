"""Spoken digits as frames: a public set of the form of the licensed TIMIT, always under its own name.

The Free Spoken Digit Dataset has 3,000 recordings of the digits 0 to 9 by six speakers, at 8 kHz. Each becomes frames of
40 log-mel coefficients, each frame with four neighbours on each side: 360 numbers, as F2 of Keskar et al. 2017 takes
them. The classes stand for the tied triphone states of TIMIT: each recording is cut into ten parts of equal length, and a
frame's class is (digit, part). Speakers that test are not among those that train.
"""

import io
import re
import wave
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.frames import splice
from gengap.data.root import folder_of, read
from gengap.problem.dataset import DataSet

RATE = 8000  # samples a second
WINDOW, HOP, FOURIER = 200, 80, 512  # samples: 25 ms, 10 ms, and the transform that the window is padded to
BANDS = 40
FLOOR = 1e-10  # power that silence is raised to before its logarithm
DIGITS = 10
TEST_SPEAKERS = ("theo", "yweweler")
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")


def spoken_digits(
    root: str | Path | None = None,
    *,
    test_speakers: Sequence[str] = TEST_SPEAKERS,
    context: int = 4,
    states: int = 10,
) -> DataSet:
    """Read the recordings from `<root>/fsdd/recordings.zip`, or from the folder `<root>/fsdd/recordings`.

    Args:
        root: the data root.
        test_speakers: whose recordings are for testing, some but not all of the speakers.
        context: neighbouring frames on each side of a frame, >= 0.
        states: parts that a recording is cut into, >= 1.

    Returns:
        Inputs of shape (frames, (2 x context + 1) x 40), natural logarithms of power, targets digit x states + part. By
        default 90,085 frames of four speakers to train on and 35,152 of two to test.

    Raises:
        BadInput: a speaker is unknown, or none is left to train, or a size is out of range.
        MissingData: no root, or there are no recordings.
        DamagedFile: a recording is no 16-bit mono wave file at 8 kHz.
    """
    if states < 1:
        raise BadInput(f"states is {states}; cut a recording into at least 1 part")
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for digit, speaker, sound in recordings(folder_of("spoken-digits", root)):
        inputs = splice(log_mel(sound), context)
        targets = digit * states + torch.arange(len(inputs)) * states // len(inputs)
        parts.setdefault(speaker, []).append((inputs, targets))
    testing = [test_speakers] if isinstance(test_speakers, str) else list(test_speakers)
    if not testing or not set(testing) < set(parts):
        raise BadInput(
            f"test_speakers is {', '.join(testing)!r}; choose some but not all of {', '.join(sorted(parts))}"
        )
    train = [part for speaker in sorted(parts) if speaker not in testing for part in parts[speaker]]
    test = [part for speaker in sorted(testing) for part in parts[speaker]]
    return DataSet(_joined(train), _joined(test), DIGITS * states, "spoken-digits")


def recordings(folder: Path) -> Iterator[tuple[int, str, NDArray[np.float32]]]:
    """Read every recording, in the order of their names.

    Args:
        folder: with `recordings.zip` or `recordings/`; files named DIGIT_SPEAKER_TAKE.wav.

    Yields:
        Digit, speaker, and the sound in (-1, 1).

    Raises:
        MissingData: there are none.
        DamagedFile: a file is no such recording.
    """
    packed, unpacked = folder / "recordings.zip", folder / "recordings"
    if packed.is_file():
        yield from _from_zip(packed)
    elif unpacked.is_dir():
        for path in sorted(unpacked.glob("*.wav"), key=lambda path: path.name):
            yield _recording(path.name, read(path), unpacked)
    else:
        raise MissingData(
            f"there is no recordings.zip and no folder recordings in {folder}: put those of the Free Spoken Digit Dataset "
            f"(doi:10.5281/zenodo.1342401) there"
        )


def log_mel(sound: NDArray[np.float32]) -> Tensor:
    """Give the logarithm of the power in 40 bands, every 10 ms over 25 ms under a Hann window.

    Args:
        sound: samples at 8 kHz in (-1, 1); one shorter than a window is padded with silence.

    Returns:
        Natural logarithms, float32 of shape (frames, 40), with one frame for each window that fits.
    """
    padded = np.pad(sound, (0, max(0, WINDOW - len(sound)))).astype(np.float64)
    framed = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(framed * np.hanning(WINDOW), FOURIER)) ** 2 / WINDOW
    return torch.from_numpy(np.log(np.maximum(power @ mel_bands().T, FLOOR)).astype(np.float32))


@cache
def mel_bands() -> NDArray[np.float64]:
    """Give 40 triangles, evenly spaced from 0 to 4 kHz on the mel scale 2595 log10(1 + f / 700).

    Returns:
        Weights of the frequencies of the transform, shape (40, 257); a triangle is 1 at its centre.
    """
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(FOURIER, 1 / RATE)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles: NDArray[np.float64] = np.minimum(
        (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    )
    triangles = triangles.clip(0)
    triangles.flags.writeable = False  # one array for all
    return triangles


def _from_zip(path: Path) -> Iterator[tuple[int, str, NDArray[np.float32]]]:
    """Read the recordings of an archive; nothing is unpacked to the disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
                yield _recording(name.rpartition("/")[2], archive.read(name), path)
    except zipfile.BadZipFile as error:
        raise DamagedFile(f"{path} is a damaged archive ({error}); get it again") from error


def _recording(name: str, raw: bytes, source: Path) -> tuple[int, str, NDArray[np.float32]]:
    """Read one file."""
    found = NAME.fullmatch(name)
    if found is None:
        raise DamagedFile(f"{source} holds {name!r}; recordings are called DIGIT_SPEAKER_TAKE.wav")
    try:
        with wave.open(io.BytesIO(raw)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DamagedFile(f"{name} of {source} is no wave file ({error}); get it again") from error
    if form != (1, 2, RATE) or not content:
        raise DamagedFile(
            f"{name} of {source} has (channels, bytes, rate) {form}; recordings are 16-bit mono at {RATE} Hz"
        )
    sound = np.frombuffer(content, "<i2").astype(np.float32) / np.float32(2**15)
    return int(found["digit"]), str(found["speaker"]), sound


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Put recordings one after the other."""
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)
