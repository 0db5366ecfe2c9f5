"""Runs made by a Ray cluster of two nodes. Oracle: `gengap.train` of each recipe alone, to the bit; and a file in which a
loss writes down every update with the node that made it."""

import os
import signal
import time
from pathlib import Path

import pytest
from engine_problems import Counted, check_digits, check_failing, counted_packs, packed
from sweep_problems import blobs
from torch.nn import functional

import gengap
from gengap import Interrupted
from gengap.core.events import Message, Progress
from gengap.sweeps.engines import make_engine

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, on this machine; the driver is on the first."""
    from ray.cluster_utils import Cluster

    environment = pytest.MonkeyPatch()
    environment.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the test's modules
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.second = made.add_node(**NODE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
    environment.undo()


class Located:
    """A loss that writes down batch size and node of every update, and takes its time."""

    def __init__(self, log, seconds):
        self.log, self.seconds = str(log), seconds

    def __call__(self, outputs, targets):
        if outputs.requires_grad:
            with Path(self.log).open("a") as file:
                file.write(f"{len(targets)} {ray.get_runtime_context().get_node_id()}\n")
            time.sleep(self.seconds)
        return functional.cross_entropy(outputs, targets)

    def lines(self):
        return [line.split() for line in Path(self.log).read_text().splitlines()] if Path(self.log).exists() else []


def test_every_run_comes_out_once_with_the_bits_it_has_alone(cluster):
    check_digits(make_engine("ray"))


def test_a_failing_model_is_a_failed_run_and_no_retry(cluster, tmp_path):
    check_failing(make_engine("ray"), tmp_path / "log")


def test_ctrl_c_keeps_what_is_finished(cluster, tmp_path):
    kept = []

    def press(made):
        kept.append(made.row.recipe["batch_size"])
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="interrupted; 1 of 2 runs came out and are kept"):
        make_engine("ray").run(counted_packs(Counted(tmp_path / "log"), {4: 1, 20: 10**6}), press)
    assert kept == [4]


def test_a_killed_node_loses_nothing_and_nothing_is_made_twice(cluster, tmp_path, capsys):
    """Twelve runs of different batch sizes in four packs; the second node is killed in the middle of a run."""
    sizes, steps, loss = list(range(3, 15)), 8, Located(tmp_path / "log", seconds=0.25)
    recipes = [gengap.Recipe(lr=0.1, batch_size=size, drop_last=True, budget={"steps": steps}) for size in sizes]
    problem, second = blobs(loss=loss), cluster.second.node_id
    kept, killed, said = [], [], []

    def on_second():
        """Batch sizes of the runs that the second node began, in order."""
        return list(dict.fromkeys(int(size) for size, node in loss.lines() if node == second))

    def keep(made):
        kept.append(made.row.recipe["batch_size"])
        if not killed and any(size in kept for size in on_second()):
            while on_second()[-1] in kept:  # until it is in the middle of another run
                time.sleep(0.05)
            killed.extend([on_second()[-1], list(kept)])
            cluster.remove_node(cluster.second, allow_graceful=False)

    engine = make_engine("ray")
    engine.run(packed(problem, recipes, size=3), keep, said.append)
    assert sorted(kept) == sizes
    cut_off, before = killed
    updates = [int(size) for size, _ in loss.lines()]
    made = {size: updates.count(size) for size in sizes}
    assert {made[size] for size in before} == {steps}  # runs that had come out were not made again
    assert made[cut_off] > steps  # begun on the dead node, and made again
    assert min(made.values()) == steps
    assert all(event.warning for event in said if isinstance(event, Message))
    assert any("a Ray worker was lost" in event.text for event in said if isinstance(event, Message))
    assert [event for event in said if isinstance(event, Progress)][-1].done == len(sizes)
    assert not capsys.readouterr().out  # it is for results alone
