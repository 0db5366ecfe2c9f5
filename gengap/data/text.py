"""Text as windows of token numbers: the Penn Treebank by words, a text file of one's own by characters.

A sample is a window of `length` tokens, its target the same window one token later, both int64 of shape (length,).
Windows follow each other without overlap, so every token but the first is predicted once; up to `length` - 1 at the end
are left out. A batch of B windows is one of B x length tokens, an epoch one of all tokens.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile
from gengap.data.root import file_of, folder_of, read
from gengap.problem.dataset import DataSet

END, UNKNOWN = "<eos>", "<unk>"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text as numbers.

    Attributes:
        vocabulary: the tokens; a token's number is its place.
        splits: token numbers of each split, in the order of the text; int64 of shape (tokens,).
    """

    vocabulary: tuple[str, ...]
    splits: dict[str, Tensor]


def penn_treebank(root: str | Path | None = None, *, length: int = 35, held_out: str = "test") -> DataSet:
    """Read the Penn Treebank in Mikolov's form from `<root>/ptb/ptb.train.txt` and its companions.

    Args:
        root: the data root.
        length: words in a window, >= 1.
        held_out: the split that is measured while training: "valid" to choose by, "test" to report.

    Returns:
        Windows of words; with length 35, 26,559 to train on, 2,355 to test and 2,107 to validate.

    Raises:
        BadInput: `length` is not positive or too long, or `held_out` is no such split.
        MissingData: no root, or a file is not there.
        DamagedFile: a file is no UTF-8 text.
    """
    if held_out not in {"valid", "test"}:
        raise BadInput(f"held_out is {held_out!r}; choose 'valid' or 'test'")
    corpus = read_penn_treebank(root)
    train, test = (windows(corpus.splits[split], length) for split in ("train", held_out))
    return DataSet(train, test, len(corpus.vocabulary), "penn-treebank", tokens_per_sample=length)


def read_penn_treebank(root: str | Path | None) -> Corpus:
    """Read all three splits; a line is its words and `<eos>`.

    Words are numbered by their frequency in the training text, the most frequent first, equal ones by the alphabet.

    Args:
        root: the data root.

    Returns:
        929,589 tokens to train on, 73,760 to validate, 82,430 to test; 10,000 words with `<unk>` and `<eos>`.

    Raises:
        MissingData: no root, or a file is not there.
        DamagedFile: a file is no UTF-8 text, or holds a word that the training text has not, and there is no `<unk>`.
    """
    files = {split: file_of("penn-treebank", root, f"ptb.{split}.txt") for split in SPLITS}
    words = {split: [word for line in _text(path).splitlines() for word in (*line.split(), END)]
             for split, path in files.items()}  # fmt: skip
    counts = Counter(words["train"])
    vocabulary = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    return Corpus(vocabulary, {split: _numbers(words[split], vocabulary, files[split]) for split in SPLITS})


def characters(
    root: str | Path | None = None, *, file: str = "input.txt", length: int = 64, test_share: float = 0.1
) -> DataSet:
    """Read a text file of the user's, character by character.

    Args:
        root: the data root; not needed where `file` is an absolute path.
        file: UTF-8 text, below `<root>/text` or absolute.
        length: characters in a window, >= 1.
        test_share: how much of the end of the text is for testing, between 0 and 1.

    Returns:
        Windows of characters. The classes are all characters of the file, in the order of their code points.

    Raises:
        BadInput: `test_share` is outside (0, 1), or a part of the text is shorter than one window.
        MissingData: no root, or the file is not there.
        DamagedFile: it is no UTF-8 text.
    """
    if not 0 < test_share < 1:
        raise BadInput(f"test_share is {test_share}; choose more than 0 and less than 1")
    path = Path(file) if Path(file).is_absolute() else folder_of("text", root) / file
    text = _text(path)
    vocabulary = tuple(sorted(set(text)))
    ids = _numbers(text, vocabulary, path)
    cut = len(ids) - round(test_share * len(ids))
    train, test = windows(ids[:cut], length), windows(ids[cut:], length)
    return DataSet(train, test, len(vocabulary), f"text of {path.name}", tokens_per_sample=length)


def windows(ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cut a text into windows.

    Args:
        ids: token numbers, shape (tokens,).
        length: tokens in a window, >= 1.

    Returns:
        Inputs and targets, each of shape (N, length) with N = (tokens - 1) // length; views of `ids`.

    Raises:
        BadInput: `length` is not positive, or the text is too short for one window and the token after it.
    """
    if length < 1 or len(ids) <= length:
        raise BadInput(
            f"a text of {len(ids):,} tokens cannot be cut into windows of {length}; choose a length from 1 to {len(ids) - 1:,}"
        )
    N = (len(ids) - 1) // length
    return ids[: N * length].view(N, length), ids[1 : N * length + 1].view(N, length)


def _text(path: Path) -> str:
    """Read a file as UTF-8."""
    try:
        return read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFile(
            f"{path} is no UTF-8 text: {error.reason} at byte {error.start:,}; convert it first"
        ) from error


def _numbers(tokens: Sequence[str], vocabulary: tuple[str, ...], path: Path) -> Tensor:
    """Look tokens up; those that the vocabulary has not are `<unk>` where it has that."""
    number = {token: i for i, token in enumerate(vocabulary)}
    unknown = number.get(UNKNOWN)
    found = [number.get(token, unknown) for token in tokens]
    if None in found:
        raise DamagedFile(
            f"{path} holds {tokens[found.index(None)]!r}, which the training text has not; take files that belong together"
        )
    return torch.tensor(found, dtype=torch.int64)
