"""Frames of TIMIT from a Kaldi recipe: features and alignments in Kaldi's own archives, read by `kaldiio`.

Layout: `<root>/timit/train` and `<root>/timit/test`, each with `feats.scp` (a matrix of features for each utterance) and
`pdf.scp` (its state in each frame, as `ali-to-pdf final.mdl "ark:gunzip -c ali.*.gz|" ark,scp:pdf.ark,pdf.scp` writes it).
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile, MissingData
from gengap.data.frames import splice
from gengap.data.root import folder_of, read
from gengap.problem.dataset import DataSet


def timit(root: str | Path | None = None, *, context: int = 4, classes: int = 1973) -> DataSet:
    """Read TIMIT from `<root>/timit`; nothing is normalised beyond what the recipe did.

    Keskar et al. 2017 have 721,329 training and 310,621 test frames of 360 numbers and 1,973 states; how many there are
    here is decided by the recipe that made the files. All is held in memory: 1.4 kB for each frame of 360.

    Args:
        root: the data root.
        context: neighbouring frames on each side of a frame.
        classes: number of states of the model that aligned.

    Returns:
        Inputs of shape (frames, (2 x context + 1) x D), targets the states.

    Raises:
        BadInput: kaldiio is not installed, `context` is negative, a state is not below `classes`, or a script file asks to
            run a command.
        MissingData: no root, or a script file or archive is not there.
        DamagedFile: an archive is not what its format promises, or features and alignments do not belong together.
    """
    folder = folder_of("timit", root)
    train, test = (read_frames(folder / split, context=context) for split in ("train", "test"))
    largest = max(int(targets.max()) for _, targets in (train, test))
    if largest >= classes:
        raise BadInput(f"{folder} holds state {largest:,}, but classes is {classes:,}; choose at least {largest + 1:,}")
    return DataSet(train, test, classes, "timit")


def read_frames(folder: str | Path, *, context: int = 4) -> tuple[Tensor, Tensor]:
    """Read one folder with `feats.scp` and `pdf.scp`, utterances in the order of the former.

    Args:
        folder: where the two script files lie.
        context: neighbouring frames on each side of a frame.

    Returns:
        Inputs, float32 of shape (frames, (2 x context + 1) x D), and states, int64 of shape (frames,).

    Raises:
        BadInput: kaldiio is not installed, `context` is negative, or a script file asks to run a command.
        MissingData: a script file or an archive is not there.
        DamagedFile: an archive is not what its format promises, or features and alignments do not belong together.
    """
    folder = Path(folder)
    features, states = read_script(folder / "feats.scp"), read_script(folder / "pdf.scp")
    parts = []
    for name, place in features.items():
        if name not in states:
            raise DamagedFile(
                f"{folder / 'pdf.scp'} has no utterance {name!r} of feats.scp; leave it out there, or align it too"
            )
        parts.append(_utterance(name, _load(place), _load(states[name]), context))
    inputs, targets = zip(*parts, strict=True)
    if len({part.shape[1] for part in inputs}) > 1:
        raise DamagedFile(f"{folder / 'feats.scp'} mixes features of different widths; make them all in the same way")
    return torch.cat(inputs), torch.cat(targets)


def read_script(path: Path) -> dict[str, str]:
    """Read a script file: on each line the name of an utterance, and the place of its numbers, `file.ark:offset`.

    Args:
        path: the file; archives named without a leading slash are looked for in the current folder, as Kaldi does, and
            then beside it.

    Returns:
        Places by name.

    Raises:
        BadInput: a place is a command, which Kaldi would run and this does not.
        MissingData: there is no such file, or an archive that it names is not there.
        DamagedFile: a line has no name and place, or there is none.
    """
    places = {}
    for line in read(path).decode("utf-8", "replace").splitlines():
        name, _, place = line.strip().partition(" ")
        place = place.strip()
        if not place:
            raise DamagedFile(f"{path} has the line {line[:60]!r}; write a name and file.ark:offset")
        if "|" in place:
            raise BadInput(
                f"{path} asks to run a command for {name!r}; copy the features to an archive first (copy-feats)"
            )
        archive, colon, offset = place.rpartition(":")
        if not colon or not offset.isdigit():
            archive, colon, offset = place, "", ""
        places[name] = f"{_archive(archive, path)}{colon}{offset}"
    if not places:
        raise DamagedFile(f"{path} is empty; write one line for each utterance")
    return places


def _archive(archive: str, script: Path) -> Path:
    """Find an archive."""
    for candidate in (Path(archive), script.parent / archive):
        if candidate.is_file():
            return candidate
    raise MissingData(f"there is no {archive}, which {script} names; start in the folder that Kaldi ran in, or move it")


def _utterance(name: str, features: Any, states: Any, context: int) -> tuple[Tensor, Tensor]:
    """Check the numbers of one utterance against each other, and splice."""
    if features.ndim != 2 or states.ndim != 1 or states.dtype.kind not in "iu" or len(features) != len(states):
        raise DamagedFile(
            f"utterance {name!r} has features of shape {features.shape} and {states.dtype} states of shape {states.shape}; "
            f"they must be (frames, D) and integers of shape (frames,)"
        )
    return (
        splice(torch.from_numpy(features.astype(np.float32)), context),
        torch.from_numpy(states.astype(np.int64)),
    )


def _load(place: str) -> Any:
    """Read the numbers at one place."""
    try:
        kaldiio = import_module("kaldiio")
    except ModuleNotFoundError as error:
        raise BadInput("Kaldi's archives are read by kaldiio, which is not installed: pip install kaldiio") from error
    try:
        found = kaldiio.load_mat(place)
    except Exception as error:  # a damaged archive can raise nearly anything
        text = str(error).partition("\n")[0]
        raise DamagedFile(f"{place} is no matrix or vector of Kaldi's ({type(error).__name__}: {text})") from error
    if not isinstance(found, np.ndarray):
        raise DamagedFile(f"{place} holds a {type(found).__name__}, and no matrix or vector")
    return found
