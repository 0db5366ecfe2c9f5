"""The weights of a run on its way: a probe is shown them at chosen updates, and a folder keeps them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from gengap.core.errors import BadInput, DamagedFile
from gengap.training.checkpoint import read, write

FORMAT = "gengap.snapshot/1"
INITIAL = "initial.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A run at one moment; the tensors are copies, on the device of the run, and free to be kept.

    Attributes:
        step: updates made.
        samples: training samples used so far, repeats counted.
        params: weights by name.
        initial_params: the weights the run began with.
        buffers: running statistics and other buffers.
        run: what tells this run from others: the keys of its recipe and its problem.
        memory: `state_dict` of the optimizer, where the probe asks for it; folders do not keep it.
    """

    step: int
    samples: int
    params: Mapping[str, Tensor]
    initial_params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    run: str
    memory: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What is called with a run's weights, and when.

    Attributes:
        call: takes a `Snapshot`; what it returns is ignored, and what it raises ends the training.
        at: numbers of updates, 0 for the start; None: `count` of them, evenly spaced in the logarithm from the first
            update to the last, and the start.
        count: how many; fewer where neighbours round to the same update.
        memory: show the optimizer's memory too, so that a run that starts from the snapshot goes on with it.
    """

    call: Callable[[Snapshot], object]
    at: Sequence[int] | None = None
    count: int = 30
    memory: bool = False

    def steps(self, total: int) -> list[int]:
        """Choose the updates.

        Args:
            total: updates of the whole run (at most, where it trains until converged).

        Returns:
            Ascending numbers of updates.

        Raises:
            BadInput: one of them is not a whole number from 0 to `total`, or `count` is below 2.
        """
        if self.at is None:
            return log_steps(total, self.count)
        for step in self.at:
            if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= total:
                raise BadInput(f"a probe at update {step!r} was asked for; give whole numbers from 0 to {total:,}")
        return sorted(set(self.at))


def log_steps(total: int, count: int) -> list[int]:
    """Space updates evenly in the logarithm of their number.

    Args:
        total: the last update, >= 1.
        count: how many to choose, >= 2.

    Returns:
        0, then at most `count` distinct updates from 1 to `total`.

    Raises:
        BadInput: `count` is below 2.
    """
    if count < 2:
        raise BadInput(f"{count} snapshots were asked for; at least 2 are needed, of the first update and the last")
    return [0, *sorted({round(step) for step in np.geomspace(1, total, count).tolist()})]


def as_probe(probe: Probe | Callable[[Snapshot], object] | None) -> Probe | None:
    """Take a probe in either form.

    Args:
        probe: a `Probe`, a function to call at the usual updates, or None.

    Returns:
        The probe, or None.

    Raises:
        BadInput: it cannot be called.
    """
    if probe is None or isinstance(probe, Probe):
        return probe
    if not callable(probe):
        raise BadInput(f"probe is a {type(probe).__name__}; give a function of a Snapshot, or a gengap.Probe")
    return Probe(probe)


class Showing:
    """Which update of a run is shown to its probe next.

    Args:
        probe: the probe, or None.
        total: updates of the whole run.

    Attributes:
        next: the number of that update, or -1.
    """

    def __init__(self, probe: Probe | None, total: int) -> None:
        self._probe = probe
        self._steps = [] if probe is None else probe.steps(total)
        self.next = -1
        self.go_on_from(-1)

    @property
    def with_memory(self) -> bool:
        """Whether the probe asks for the optimizer's memory."""
        return self._probe is not None and self._probe.memory

    def show(self, snapshot: Snapshot) -> None:
        """Call the probe."""
        assert self._probe is not None
        self.go_on_from(snapshot.step)
        self._probe.call(snapshot)

    def go_on_from(self, step: int) -> None:
        """Take everything up to this update as shown."""
        self.next = next((later for later in self._steps if later > step), -1)

    def end_at(self, step: int) -> None:
        """Learn that the run ends here, which with a budget until converged nobody knew."""
        if self._probe is not None and self._probe.at is None and step not in self._steps:
            self.next = step


class SnapshotFolder:
    """A folder of snapshots: a probe that writes them, and a collection that reads them one at a time.

    Every snapshot is a safetensors file `step-00001000.safetensors` that holds weights and buffers by name, as
    `model.load_state_dict` takes them. The weights at the start are kept beside them in `initial.safetensors`.

    Args:
        path: the folder; made when the first snapshot is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, snapshot: Snapshot) -> None:
        """Write a snapshot; one that is there already is written again.

        Args:
            snapshot: of the run whose snapshots the folder holds, or of any where it holds none.

        Raises:
            BadInput: the folder holds another run, or cannot be written to.
            OutOfSpace: the disk is full; no half-written file is left.
        """
        start, header = self.path / INITIAL, {"format": FORMAT, "run": snapshot.run}
        if not start.exists():
            names = json.dumps(list(snapshot.initial_params))
            write(start, header | {"params": names}, snapshot.initial_params)
        elif self._read(start)[0].get("run") != snapshot.run:
            raise BadInput(f"{self.path} holds snapshots of another run; remove it, or choose another folder")
        about = {"step": str(snapshot.step), "samples": str(snapshot.samples)}
        names = json.dumps(list(snapshot.params))
        file = self.path / f"step-{snapshot.step:08d}.safetensors"
        write(file, header | about | {"params": names}, {**snapshot.params, **snapshot.buffers})

    def __len__(self) -> int:
        """Count the snapshots."""
        return len(self._files())

    def __iter__(self) -> Iterator[Snapshot]:
        """Read the snapshots in the order of their updates; each is read when it is asked for.

        Yields:
            Snapshots, on the CPU.

        Raises:
            BadInput: the folder holds no snapshot.
            DamagedFile: a file is not whole, or no snapshot.
        """
        files = self._files()
        if not files:
            raise BadInput(f"{self.path} holds no snapshots; train with probe=SnapshotFolder({str(self.path)!r})")
        header, initial = self._read(self.path / INITIAL)
        initial = {name: initial[name] for name in json.loads(header["params"])}
        for file in files:
            header, tensors = self._read(file)
            names = json.loads(header["params"])
            yield Snapshot(
                step=int(header["step"]),
                samples=int(header["samples"]),
                params={name: tensors.pop(name) for name in names},
                initial_params=initial,
                buffers=tensors,
                run=header["run"],
            )

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("step-*.safetensors"))

    def _read(self, file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
        """Read a file of the folder.

        Args:
            file: which.

        Returns:
            Its header and its tensors.

        Raises:
            DamagedFile: it is not whole, or was not written by this class.
        """
        try:
            header, tensors = read(file)
        except (SafetensorError, OSError) as error:
            raise DamagedFile(
                f"{file} is not a readable snapshot ({error}); remove the folder and train again"
            ) from error
        if header.get("format") != FORMAT:
            raise DamagedFile(f"{file} is not a snapshot of gengap ({FORMAT}); choose another folder")
        return header, tensors
