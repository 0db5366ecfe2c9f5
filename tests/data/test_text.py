"""Oracles: the published token counts, windows cut by plain Python lists, and small texts whose numbers are known by eye."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.text import characters, penn_treebank, read_penn_treebank, windows

TEXTS = {"train": " the cat <unk> \n the the dog \n", "valid": " cat the bird \n", "test": " dog \n cat \n"}


@pytest.fixture
def treebank(tmp_path):
    (tmp_path / "ptb").mkdir()
    for split, text in TEXTS.items():
        (tmp_path / "ptb" / f"ptb.{split}.txt").write_text(text)
    return tmp_path


@given(tokens=st.integers(2, 60), length=st.integers(1, 20))
def test_windows_are_those_of_a_list(tokens, length):
    ids = list(range(100, 100 + tokens))
    if tokens <= length:
        with pytest.raises(BadInput, match="cannot be cut into windows"):
            windows(torch.tensor(ids), length)
        return
    inputs, targets = windows(torch.tensor(ids), length)
    starts = range(0, (tokens - 1) // length * length, length)
    assert inputs.tolist() == [ids[s : s + length] for s in starts]
    assert targets.tolist() == [ids[s + 1 : s + 1 + length] for s in starts]
    assert len(targets.flatten().unique()) == targets.numel() > tokens - 1 - length  # each token once, few left out


def test_words_are_numbered_by_frequency(treebank):
    corpus = read_penn_treebank(treebank)
    assert corpus.vocabulary == ("the", "<eos>", "<unk>", "cat", "dog")
    found = {split: ids.tolist() for split, ids in corpus.splits.items()}
    assert found == {"train": [0, 3, 2, 1, 0, 0, 4, 1], "valid": [3, 0, 2, 1], "test": [4, 1, 3, 1]}


@pytest.mark.parametrize(("held_out", "ids"), [("test", [4, 1, 3, 1]), ("valid", [3, 0, 2, 1])])
def test_the_treebank_as_windows(treebank, held_out, ids):
    found = penn_treebank(treebank, length=3, held_out=held_out)
    assert (found.classes, found.tokens_per_sample, found.name) == (5, 3, "penn-treebank")
    assert found.train[0].tolist() == [[0, 3, 2], [1, 0, 0]]
    assert found.train[1].tolist() == [[3, 2, 1], [0, 0, 4]]
    assert (found.test[0].tolist(), found.test[1].tolist()) == ([ids[:3]], [ids[1:]])
    assert found.train[0].dtype == found.train[1].dtype == torch.int64


def test_what_the_treebank_refuses(treebank):
    with pytest.raises(BadInput, match="held_out is 'train'; choose 'valid' or 'test'"):
        penn_treebank(treebank, held_out="train")
    with pytest.raises(BadInput, match="windows of 0"):
        penn_treebank(treebank, length=0)
    (treebank / "ptb" / "ptb.train.txt").write_text("the cat dog")
    with pytest.raises(DamagedFile, match=r"ptb.valid.txt holds 'bird', which the training text has not"):
        penn_treebank(treebank, length=2)
    (treebank / "ptb" / "ptb.test.txt").unlink()
    with pytest.raises(MissingData, match=r"there is no ptb.test.txt in .*put Mikolov's"):
        penn_treebank(treebank)


def test_a_file_of_characters(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "input.txt").write_text("abcabcabé\n", encoding="utf-8")
    found = characters(tmp_path, length=2, test_share=0.3)
    assert found.classes == 5  # newline, a, b, c, é
    assert found.train[0].tolist() == [[1, 2], [3, 1], [2, 3]]
    assert found.train[1].tolist() == [[2, 3], [1, 2], [3, 1]]
    assert (found.test[0].tolist(), found.test[1].tolist()) == ([[2, 4]], [[4, 0]])
    absolute = characters(None, file=str(tmp_path / "text" / "input.txt"), length=2, test_share=0.3)
    assert torch.equal(absolute.train[0], found.train[0])


def test_what_characters_refuse(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "latin.txt").write_bytes("é".encode("latin-1") * 9)
    with pytest.raises(DamagedFile, match=r"latin.txt is no UTF-8 text: .* at byte 0"):
        characters(tmp_path, file="latin.txt")
    (tmp_path / "text" / "short.txt").write_text("abc")
    with pytest.raises(BadInput, match="choose a length from 1 to"):
        characters(tmp_path, file="short.txt")
    with pytest.raises(BadInput, match="test_share is 1"):
        characters(tmp_path, test_share=1)
    with pytest.raises(MissingData, match=r"no data root was given.*put one text file there"):
        characters(None)


@pytest.mark.skipif(
    not Path(os.environ.get("GENGAP_DATA", "nowhere"), "ptb").is_dir(), reason="GENGAP_DATA names no folder with ptb"
)
def test_the_real_treebank_has_its_published_counts():
    corpus = read_penn_treebank(os.environ["GENGAP_DATA"])
    assert {split: len(ids) for split, ids in corpus.splits.items()} == {
        "train": 929_589,
        "valid": 73_760,
        "test": 82_430,
    }
    assert len(corpus.vocabulary) == 10_000
    assert sum((ids == corpus.vocabulary.index("<eos>")).sum().item() for ids in corpus.splits.values()) == 49_199
