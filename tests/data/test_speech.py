"""Oracles: splicing by a plain loop, the power of a sine and the band that its frequency lies in, a naive Fourier sum,
counts of the real recordings, and wave files that the test writes."""

import io
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.frames import splice
from gengap.data.speech import log_mel, mel_bands, spoken_digits


def sine(hertz, samples=400, height=0.5):
    return (height * np.sin(2 * np.pi * hertz * np.arange(samples) / 8000)).astype(np.float32)


def as_wave(sound, rate=8000, channels=1):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((sound * 2**15).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """Two digits of three speakers, 400 + 80 x digit samples long, in a folder."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker, hertz in (("ann", 300), ("bob", 600), ("eve", 900)):
        for digit in (0, 3):
            (folder / f"{digit}_{speaker}_0.wav").write_bytes(as_wave(sine(hertz, 400 + 80 * digit)))
    return tmp_path


@given(frames=st.integers(1, 8), context=st.integers(0, 5))
def test_splicing_is_a_loop(frames, context):
    features = torch.arange(frames * 2).reshape(frames, 2)
    exact = [
        [x for k in range(t - context, t + context + 1) for x in features[min(max(k, 0), frames - 1)].tolist()]
        for t in range(frames)
    ]
    assert splice(features, context).tolist() == exact


def test_splicing_refuses_a_negative_context():
    with pytest.raises(BadInput, match="context is -1"):
        splice(torch.zeros(3, 2), -1)


def test_bands_are_triangles_on_the_mel_scale():
    """Between the centres of the first and the last band neighbouring triangles add up to 1; corners by the formula."""
    bands, frequency = mel_bands(), np.linspace(0, 4000, 257)
    top = 2595 * np.log10(1 + 4000 / 700)
    centres = 700 * (10 ** (top * np.arange(1, 41) / 41 / 2595) - 1)
    inside = (frequency >= centres[0]) & (frequency <= centres[-1])
    assert bands.shape == (40, 257)
    np.testing.assert_allclose(bands.sum(0)[inside], 1, rtol=1e-12)
    mean = (bands * frequency).sum(1) / bands.sum(1)
    assert (np.abs(mean - centres) < 4000 / 256 + 0.05 * centres).all()


def test_log_mel_by_a_naive_sum():
    sound = np.random.default_rng(0).normal(0, 0.1, 360).astype(np.float32)
    found = log_mel(sound)
    assert found.shape == (3, 40)
    n = np.arange(200)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 199)
    for t in range(3):
        framed = sound[80 * t : 80 * t + 200] * window
        power = [abs((framed * np.exp(-2j * np.pi * k * n / 512)).sum()) ** 2 / 200 for k in range(257)]
        np.testing.assert_allclose(found[t], np.log(mel_bands() @ power), rtol=1e-5)


def test_a_louder_and_a_higher_sound():
    """Ten times the height is log(100) in every band that hears it; a sine is loudest in the band around it."""
    noise = np.random.default_rng(0).normal(0, 0.01, 400).astype(np.float32)
    quiet, loud = log_mel(noise), log_mel(10 * noise)
    np.testing.assert_allclose(loud - quiet, np.log(100), rtol=1e-3)
    for hertz in (300, 1000, 3000):
        assert mel_bands()[int(log_mel(sine(hertz))[0].argmax()), round(hertz / 8000 * 512)] > 0.3


def test_silence_has_a_floor_and_short_sounds_one_frame():
    assert torch.equal(log_mel(np.zeros(50, np.float32)), torch.full((1, 40), np.log(1e-10)))


def test_frames_classes_and_speakers(root):
    found = spoken_digits(root, test_speakers=["eve"], states=2)
    frames = {0: 3, 3: 6}  # 1 + (samples - 200) // 80
    labels = [0, 0, 1, *[6] * 3, *[7] * 3]
    assert found.train[0].shape == (2 * sum(frames.values()), 360)
    assert sorted(found.train[1].tolist()) == sorted(labels * 2)
    assert found.test[1].tolist() == labels
    heard = [np.trunc(sine(900, samples) * 2**15).astype(np.float32) / 2**15 for samples in (400, 640)]
    torch.testing.assert_close(found.test[0], torch.cat([splice(log_mel(sound), 4) for sound in heard]))
    assert (found.classes, found.name) == (20, "spoken-digits")


def test_an_archive_is_read_as_the_folder(root):
    folder = root / "fsdd" / "recordings"
    unpacked = spoken_digits(root, test_speakers="bob")
    with zipfile.ZipFile(root / "fsdd" / "recordings.zip", "w") as archive:
        for path in reversed(sorted(folder.iterdir())):
            archive.write(path, f"recordings/{path.name}")
            path.unlink()
    packed = spoken_digits(root, test_speakers="bob")
    for one, other in zip((*unpacked.train, *unpacked.test), (*packed.train, *packed.test), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("speakers", [["zoe"], [], ["ann", "bob", "eve"]], ids=str)
def test_speakers_that_cannot_test(root, speakers):
    with pytest.raises(BadInput, match="choose some but not all of ann, bob, eve"):
        spoken_digits(root, test_speakers=speakers)


BROKEN = {
    "rate": ("1_ann_0.wav", as_wave(sine(300), rate=16000), "recordings are 16-bit mono at 8000 Hz"),
    "stereo": ("1_ann_0.wav", as_wave(sine(300), channels=2), "recordings are 16-bit mono"),
    "empty": ("1_ann_0.wav", as_wave(sine(300)[:0]), "recordings are 16-bit mono"),
    "no wave": ("1_ann_0.wav", b"RIFF", "is no wave file"),
    "name": ("one_ann.wav", as_wave(sine(300)), "recordings are called DIGIT_SPEAKER_TAKE.wav"),
}


@pytest.mark.parametrize(("name", "raw", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_recording(root, name, raw, says):
    (root / "fsdd" / "recordings" / name).write_bytes(raw)
    with pytest.raises(DamagedFile, match=says):
        spoken_digits(root)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingData, match=r"no recordings\.zip and no folder recordings"):
        spoken_digits(tmp_path)
    (tmp_path / "fsdd").mkdir()
    (tmp_path / "fsdd" / "recordings.zip").write_bytes(b"PK")
    with pytest.raises(DamagedFile, match="damaged archive"):
        spoken_digits(tmp_path)
    with pytest.raises(BadInput, match="states is 0"):
        spoken_digits(tmp_path, states=0)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path(os.environ.get("GENGAP_DATA", "nowhere"), "fsdd").is_dir(), reason="GENGAP_DATA names no folder with fsdd"
)
def test_the_real_recordings():
    from gengap.core.catalogue import DATA

    found = spoken_digits(os.environ["GENGAP_DATA"], context=0)
    entry = DATA["spoken-digits"]
    assert (len(found.train[1]), len(found.test[1])) == (entry.train, entry.test)
    assert (found.train[1].bincount(minlength=100) > 0).all()
    assert (found.test[1].bincount(minlength=100) > 0).all()
    assert found.train[0].isfinite().all()
