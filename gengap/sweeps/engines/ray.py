"""Make packs as tasks of a Ray cluster."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch

from gengap.core.errors import BadInput, GengapError
from gengap.core.events import Event, Listener, Message, silent
from gengap.problem.problem import Problem, first_line
from gengap.sweeps.engines.books import Books, Checkpoint, Errand, paths
from gengap.sweeps.engines.parcel import check_same, light, name_of, parcels_of
from gengap.sweeps.work import Keep, Made, Pack, make
from gengap.training.interrupt import stop_on_interrupt

try:
    import ray
    from ray import ObjectRef, ObjectRefGenerator, cloudpickle
    from ray.exceptions import RayError, RayTaskError
except ImportError as missing:
    raise BadInput(f'ray cannot be imported ({missing}); install it with: pip install "gengap[ray]"') from missing

POLL_SECONDS = 0.5  # between looks for Ctrl-C
WINDOW = 1000  # tasks that Ray is given at once; `ray.wait` looks at each of them
PROBLEMS = 2  # that a Ray worker holds, made


class RayCluster:
    """Packs as Ray tasks with resources; runs come back one by one, to this process alone.

    A Ray that is running in this process is used as it is; else one is found or started, and left at the end of each call of
    `run`, or of a `with` block.

    Args:
        workers: tasks at once; None: as many as the cluster has room for.
        address: of the cluster, "auto" for the one of this machine; None: RAY_ADDRESS, or a Ray of one's own on this machine.
        num_cpus: cores of a task, and its torch threads.
        num_gpus: GPUs of a task, which may be a share.
        retries: how often runs are made again whose node or worker was lost.
        checkpoint: names the file where a run keeps its state while it is at work; None: no state is kept.
        shared_disk: whether all nodes see those files at the same path; without it no state is kept.
        runtime_env: of Ray, where it is found or started here, for example {"working_dir": "."} for modules of your own.
    """

    name = "ray"

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        retries: int = 3,
        checkpoint: Checkpoint | None = None,
        shared_disk: bool = False,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        self.workers, self.address, self.runtime_env = workers, address, runtime_env
        self.needs = {"CPU": num_cpus, "GPU": num_gpus}
        self.retries, self.checkpoint = retries, checkpoint if shared_disk else None
        self._open = ExitStack()
        # Ray's own retries would make a pack's finished runs again; `Books` sends only what is left
        self._task = ray.remote(
            num_returns="streaming", max_retries=0, num_cpus=num_cpus, num_gpus=num_gpus, retry_exceptions=False
        )(make_there)

    def __enter__(self) -> Self:
        self._open.enter_context(connected(self.address, self.workers, self.runtime_env))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, packs: Sequence[Pack], keep: Keep, listen: Listener = silent) -> None:
        """Make all runs; hand each to `keep`, in this process, as it comes in.

        Runs whose worker or node is lost before they came in are made again, one by one, wherever there is room; those that
        cost `retries` more workers are "failed" with the reason.

        Args:
            packs: the runs to make.
            keep: called once for each run.
            listen: told of the progress.

        Raises:
            Interrupted: Ctrl-C; runs that came in have been kept.
            BadInput: there is no cluster, or a problem cannot be sent to it.
        """
        parcels = parcels_of(packs, cloudpickle.dumps)
        books = Books(packs, keep, listen, retries=self.retries)
        quiet = redirect_stdout(sys.stderr)  # where Ray's own threads tell of lost nodes
        with quiet, connected(self.address, self.workers, self.runtime_env), stop_on_interrupt() as stop:
            tell_if_no_room(self.needs, listen)
            refs = {name: ray.put(parcels.pop(name)) for name in list(parcels)}
            streams: dict[ObjectRefGenerator, Errand] = {}
            try:
                while (books.open or streams) and not stop.made:
                    self._send_out(books, streams, refs)
                    take_in(books, streams, POLL_SECONDS)
                while stop.made and take_in(books, streams, 0):
                    pass
            finally:
                for stream in streams:
                    ray.cancel(stream)
        if books.open:
            raise books.interrupted()

    def _send_out(
        self, books: Books, streams: dict[ObjectRefGenerator, Errand], refs: Mapping[str, ObjectRef[Any]]
    ) -> None:
        """Give Ray what it may have at once."""
        while books.waiting and len(streams) < (self.workers or WINDOW):
            errand = books.begin()
            pack, files = errand.pack, paths(errand.pack.tasks, self.checkpoint)
            threads = max(1, int(self.needs["CPU"]))
            stream = self._task.remote(light(pack), [refs[name_of(pack)]], files, threads)
            streams[stream] = errand


def take_in(books: Books, streams: dict[ObjectRefGenerator, Errand], seconds: float) -> bool:
    """Take the next thing that comes in from any task within some time; tell whether there was one."""
    wait: Any = ray.wait
    ready, _ = wait(list(streams), num_returns=1, timeout=seconds) if streams else ([], [])
    for stream in ready:
        errand = streams[stream]
        try:
            messages, made = ray.get(next(stream))
        except StopIteration:
            del streams[stream]
            books.end(errand)
        except RayTaskError as error:  # not one of a run's own, of which `make` makes failed runs
            raise told(error) from error
        except RayError as error:
            del streams[stream]
            ray.cancel(stream)
            books.lost(errand, f"a Ray worker was lost ({type(error).__name__})")
        else:
            for message in messages:
                books.hear(errand, message)
            books.take(errand, apart(made))
    return bool(ready)


def apart(made: Made) -> Made:
    """Copy weights out of Ray's shared memory, which holds them as long as they are used and does not let them be written."""
    weights = {which: {name: x.copy() for name, x in part.items()} for which, part in made.weights.items()}
    return replace(made, weights=weights)


def told(error: RayTaskError) -> GengapError:
    """Give an error of a task as one of ours."""
    if isinstance(error.cause, GengapError):
        return error.cause
    return BadInput(
        f"a Ray worker cannot make runs ({type(error.cause).__name__}: {first_line(error.cause)}); install the same versions "
        f"of gengap, torch and your own modules on all nodes"
    )


def make_there(
    pack: Pack, parcel: Sequence[ObjectRef[Any]], checkpoints: Mapping[str, Path], threads: int
) -> Iterator[tuple[tuple[Message, ...], Made]]:
    """Make the runs of a pack, in a Ray worker.

    Args:
        pack: the runs; its problem is only named.
        parcel: the problem, in a list so that Ray does not fetch it for every task.
        checkpoints: file of each run's state while it is at work, by key.
        threads: of torch.

    Yields:
        Each run as it ends, with what was said meanwhile.
    """
    torch.set_num_threads(threads)
    problem, said = opened(parcel[0]), list[Message]()
    check_same(problem, pack)

    def note(event: Event) -> None:
        if isinstance(event, Message):
            said.append(event)

    for made in make(pack, problem, listen=note, checkpoints=checkpoints):
        yield tuple(said), made
        said.clear()


@lru_cache(maxsize=PROBLEMS)
def opened(parcel: ObjectRef[Any]) -> Problem:
    """Fetch a problem and make it once in each worker process."""
    return ray.get(parcel).opened()  # type: ignore[no-any-return]


@contextmanager
def connected(address: str | None, workers: int | None, runtime_env: Mapping[str, Any] | None) -> Iterator[None]:
    """Use the Ray that runs in this process, or one that is found or started now and left at the end."""
    if ray.is_initialized():
        yield
        return
    own = address is None and not os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if own else {}
    if runtime_env:
        settings["runtime_env"] = dict(runtime_env)
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **settings)
    except (ConnectionError, ValueError) as error:
        raise BadInput(
            f"no Ray cluster at {address or os.environ.get('RAY_ADDRESS')} ({first_line(error)}); start one with `ray start "
            f"--head`, or give no address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def tell_if_no_room(needs: Mapping[str, float], listen: Listener) -> None:
    """Say so where no node can take a task: an autoscaler may bring one, nothing else does."""
    nodes: Any = ray.nodes
    rooms = [node["Resources"] for node in nodes() if node["Alive"]]
    if not any(all(room.get(kind, 0) >= count for kind, count in needs.items()) for room in rooms):
        wanted = " and ".join(f"{count:g} {kind}" for kind, count in needs.items() if count)
        listen(Message(f"no node of the Ray cluster has {wanted}; waiting for one", warning=True))
