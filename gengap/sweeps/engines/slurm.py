"""Make packs as jobs of Slurm, through submitit; runs come back as files."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from gengap.core.errors import BadInput, GengapError, Interrupted
from gengap.core.events import Listener, Message, silent
from gengap.sweeps.engines.books import Books, Checkpoint, Errand, paths
from gengap.sweeps.engines.job_folder import JobFolder, read_parcel
from gengap.sweeps.engines.made_files import read_made, write_made
from gengap.sweeps.engines.parcel import check_same, light, name_of, parcels_of
from gengap.sweeps.engines.pool import cores
from gengap.sweeps.work import Keep, Pack, make
from gengap.training.interrupt import stop_on_interrupt

try:
    import cloudpickle
    import submitit
except ImportError as missing:
    raise BadInput(
        f'submitit cannot be imported ({missing}); install it with: pip install "gengap[slurm]"'
    ) from missing

POLL_SECONDS = 1.0  # between looks for files of runs
ARRAY = 1000  # jobs in an array, below Slurm's usual MaxArraySize
MINUTES = 240  # that a job may take, where nothing else is said
Jobs = dict[str, tuple[Any, Errand]]  # by job id: submitit's job, and the pack it makes


class Slurm:
    """Packs as array jobs; each run is a file in a shared folder as soon as it comes out.

    Where this process is killed the jobs go on: an engine on the same folder takes their runs up, and waits for jobs that are
    still in the queue instead of sending them again.

    Args:
        folder: on a disk that all nodes share: logs/ of the jobs, runs/ and problems/ while the sweep goes on.
        workers: jobs at once; None: as many as Slurm lets run ("slurm"), or as there are cores ("local").
        cluster: "slurm", or "local" for processes of this machine, to try things out.
        parameters: of submitit, for example {"slurm_partition": "gpu", "gpus_per_node": 1, "timeout_min": 60}.
        retries: how often runs are made again whose job was lost, for example by its time limit.
        checkpoint: names the file where a run keeps its state while it is at work, on the shared disk; None: no state is kept.

    Raises:
        BadInput: Slurm is not there, or submitit does not know a parameter.
    """

    name = "slurm"

    def __init__(
        self,
        *,
        folder: str | Path,
        workers: int | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
        parameters: Mapping[str, Any] | None = None,
        retries: int = 1,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise BadInput(
                "there is no Slurm here (sbatch and srun are not found); start this on a login node of the cluster"
            )
        self.folder, self.cluster = JobFolder(Path(folder).absolute()), cluster
        self.workers = cores() if workers is None and cluster == "local" else workers
        self.retries, self.checkpoint = retries, checkpoint
        limit = {"slurm_array_parallelism": workers} if workers else {}
        self.parameters = {"name": "gengap", "timeout_min": MINUTES, "cpus_per_task": 1, **limit, **(parameters or {})}
        self._executor = submitit.AutoExecutor(folder=self.folder.logs, cluster=cluster)
        try:
            self._executor.update_parameters(**self.parameters)
        except (NameError, ValueError, AssertionError, TypeError) as error:
            raise BadInput(f"submitit does not take these parameters: {error}") from error

    def run(self, packs: Sequence[Pack], keep: Keep, listen: Listener = silent) -> None:
        """Make all runs; hand each to `keep`, in this process, as its file is found.

        Args:
            packs: the runs to make.
            keep: called once for each run.
            listen: told of the progress.

        Raises:
            Interrupted: Ctrl-C; jobs have been cancelled, runs that came out have been kept.
            BadInput: a problem cannot be sent, or a job says that the input is wrong.
        """
        files = {name: self.folder.put(name, parcel) for name, parcel in parcels_of(packs, cloudpickle.dumps).items()}
        books, jobs = Books(packs, keep, listen, retries=self.retries), Jobs()
        keys = [key for errand in books.waiting for key in errand.left]
        try:
            with stop_on_interrupt() as stop:
                self._take_up(books, jobs)
                while (books.open or jobs) and not stop.made:
                    self._submit(books, jobs, files)
                    time.sleep(POLL_SECONDS)
                    self._look(books, jobs)
        finally:
            for job, _ in jobs.values():
                job.cancel(check=False)
            self.folder.note_jobs({})
        self.folder.forget(keys)
        if books.open:
            raise books.interrupted()

    def _take_up(self, books: Books, jobs: Jobs) -> None:
        """Take what jobs of an earlier driver left, and wait for those that are still in the queue."""
        kind: Any = submitit.SlurmJob if self.cluster == "slurm" else submitit.LocalJob
        old = self.folder.jobs()
        found = {name: kind(folder=self.folder.logs, job_id=name) for name in old}
        alive = {name: job for name, job in found.items() if not job.done(force_check=True)}
        owner = {key: name for name in alive for key in old[name]}
        waiting = list(books.waiting)
        books.waiting.clear()
        for errand in waiting:
            self._collect(errand, books, failed=False)
            for name, part in errand.parts(owner).items():
                if name is None:
                    books.waiting.append(part)
                else:
                    books.at_work.append(part)
                    jobs[f"{name} {len(jobs)}"] = (alive[name], part)
        if jobs:
            books.listen(Message(f"waiting for jobs that were submitted before: {', '.join(sorted(alive))}"))

    def _submit(self, books: Books, jobs: Jobs, files: Mapping[str, Path]) -> None:
        """Submit what may be submitted at once."""
        room = ARRAY if self.cluster == "slurm" or self.workers is None else self.workers - len(jobs)
        errands = [books.begin() for _ in range(min(room, len(books.waiting)))]
        if not errands:
            return
        packs = [light(errand.pack) for errand in errands]
        sent = self._executor.map_array(
            make_there,
            packs,
            [files[name_of(errand.pack)] for errand in errands],
            [self.folder for _ in errands],
            [paths(pack.tasks, self.checkpoint) for pack in packs],
            [int(self.parameters["cpus_per_task"]) for _ in errands],
        )
        jobs |= {job.job_id: (job, errand) for job, errand in zip(sent, errands, strict=True)}
        self._note(jobs)

    def _look(self, books: Books, jobs: Jobs) -> None:
        """Take runs whose files are there, and see which jobs have ended."""
        ended = [name for name, (job, _) in jobs.items() if job.done()]  # first: what they wrote is there then
        for _, errand in jobs.values():
            self._collect(errand, books)
        for name in ended:
            job, errand = jobs.pop(name)
            if errand.left:
                books.lost(errand, why(job))
            else:
                books.end(errand)
        if ended:
            self._note(jobs)

    def _collect(self, errand: Errand, books: Books, *, failed: bool = True) -> None:
        """Take the runs of a pack that are there; without `failed`, remove those that failed, to be made again."""
        for key in list(errand.left):
            if not self.folder.path_of(key).exists():
                continue
            made = read_made(self.folder.path_of(key))
            if failed or made.row.outcome != "failed":
                books.take(errand, made)
            else:
                self.folder.forget([key])

    def _note(self, jobs: Jobs) -> None:
        """Leave word of the jobs for a driver that comes after this one."""
        self.folder.note_jobs({job.job_id: list(errand.left) for job, errand in jobs.values()})


def make_there(
    pack: Pack, parcel: Path, folder: JobFolder, checkpoints: Mapping[str, Path], threads: int
) -> GengapError | None:
    """Make the runs of a pack, in a job; those whose files are there are left out, as Slurm may start a job twice.

    Args:
        pack: the runs; its problem is only named.
        parcel: file of the problem.
        folder: takes the runs.
        checkpoints: file of each run's state while it is at work, by key.
        threads: of torch.

    Returns:
        What is wrong for all runs; None: nothing.
    """
    torch.set_num_threads(threads)
    left = tuple(task for task in pack.tasks if not folder.path_of(task.key).exists())
    try:
        problem = read_parcel(parcel).opened()
        check_same(problem, pack)
        for made in make(replace(pack, tasks=left), problem, checkpoints=checkpoints):
            write_made(folder.path_of(made.row.key), made)
    except GengapError as error:
        return error
    return None


def why(job: Any) -> str:
    """Say why a job left runs unmade.

    Args:
        job: that has ended.

    Returns:
        How it ended, and where its messages are.

    Raises:
        GengapError: the job says that the input is wrong for all runs.
    """
    ended = f"as {job.state}"
    if job.paths.result_pickle.exists():
        try:
            said = job.result()
        except Exception as error:  # submitit raises what the job raised, in words
            ended = f"with an error: {str(error).strip().rpartition(chr(10))[2]}"
        else:
            if isinstance(said, GengapError) and not isinstance(said, Interrupted):
                raise said
    return f"a job was lost (job {job.job_id} ended {ended}; its messages are in {job.paths.stderr})"
