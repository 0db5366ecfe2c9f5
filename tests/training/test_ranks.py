# Oracles: one process that trains on the whole batch; plain loops over torch modules for batch norm in pieces and for dropout
# masks, which have no equal in one process; stored gradients of the parts of every batch in McCandlish's equations for the noise
# scale.
import math
import os
import shutil
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from noise_by_hand import by_hand
from rank_cases import IN_THREE, OTHER, READ, SAME, STOPPED, masked, record, train
from torch.nn import functional
from training_problems import Counted, Rows, normed, points, problem, recipe, smooth

import gengap
from gengap.core.seeds import stream
from gengap.data.order import permutation
from gengap.training.batches import rest_of_epoch
from gengap.training.ranks import ALONE, Ranks, find_ranks

pytestmark = pytest.mark.ranks


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(size, folder, cases="rank_cases.py"):
    """Start processes as torchrun would; return their exit codes and what they printed."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    common = os.environ | where | {"WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name(cases)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=280)[0] for process in ranks]
    return [process.returncode for process in ranks], said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder):
    """What two processes found."""
    codes, said = start(2, folder)
    assert codes == [0, 0], said
    return [torch.load(folder / f"2-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def three(folder, two):
    """What the survivors of three processes found."""
    shutil.copy(folder / "interrupted", folder / "for three")
    codes, said = start(3, folder)
    assert codes == [0, 0, -9], said
    return [torch.load(folder / f"3-{rank}.pt") for rank in range(2)]


def assert_equal(found, expected):
    for part in ("params", "buffers"):
        assert found[part].keys() == expected[part].keys()
        for name, value in expected[part].items():
            torch.testing.assert_close(found[part][name], value, rtol=1e-9, atol=1e-11)
    assert found["outcome"] == expected["outcome"]
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("case", SAME)
def test_two_processes_are_one(two, case):
    expected = record(train(case))
    for rank in two:
        assert rank[case]["ranks"] == 2
        assert_equal(rank[case], expected)


@pytest.mark.parametrize("case", [case for case in IN_THREE if case in SAME])
def test_three_processes_are_one(three, case):
    expected = record(train(case))
    for rank in three:
        assert_equal(rank[case], expected)


def test_processes_agree_to_the_last_bit(two, three):
    for ranks, cases in ((two, [*SAME, *OTHER]), (three, IN_THREE)):
        for case in cases:
            first, second = (rank[case] for rank in ranks)
            assert first["history"] == second["history"]
            for part in ("params", "buffers"):
                assert all(torch.equal(value, second[part][name]) for name, value in first[part].items()), case


def test_statistics_of_each_are_ghost_batches_of_one_process(two):
    ghosts = gengap.train(problem(normed), recipe(batch_size=20, momentum=0.9, ghost_batch=10), evaluations=3)
    for rank in two:
        assert_equal(rank["norm of each"], record(ghosts))


def plain_loop(net, pieces, epochs=3):
    """SGD over batches of 20: `pieces(rows)` gives what goes through the network, each with a number for its masks."""
    x, y = points()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(epochs):
        for rows in permutation(0, epoch, 40).split(20):
            optimizer.zero_grad()
            for part in pieces(rows):
                (functional.cross_entropy(net(x[part]), y[part]) * len(part) / 20).backward()
            optimizer.step()
    return net


def fresh(factory):
    return problem(factory).model(0, dtype=torch.float64).train()


def test_pieces_of_all_processes_share_statistics(two):
    def pieces(rows):
        first, second = rows.split(10)
        return [torch.cat([first[:5], second[:5]]), torch.cat([first[5:], second[5:]])]

    expected = plain_loop(fresh(normed), pieces).state_dict()
    found = two[0]["norm of all in pieces"]
    for name, value in (found["params"] | found["buffers"]).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [2, 3])
def test_each_process_has_masks_of_its_own(request, size):
    found = request.getfixturevalue({2: "two", 3: "three"}[size])[0]["dropout"]
    states = []
    with torch.random.fork_rng(devices=[]):
        for rank in range(size):
            torch.manual_seed(stream(0, "dropout", rank))
            states.append(torch.get_rng_state())

        def pieces(rows):
            ends = [20 * rank // size for rank in range(size + 1)]
            for rank in range(size):
                torch.set_rng_state(states[rank])
                yield rows[ends[rank] : ends[rank + 1]]
                states[rank] = torch.get_rng_state()

        expected = plain_loop(fresh(masked), pieces).state_dict()
    for name, value in found["params"].items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)


def shares(total, size, piece=None):
    ends = [total * rank // size for rank in range(size + 1)]
    own = [stop - start for start, stop in pairwise(ends)]
    return own if piece is None else [min(piece, n - done) for n in own for done in range(0, n, piece)]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", ["even", "uneven", "pieces"])
def test_the_noise_scale_is_that_of_the_gradients_of_the_processes(request, case, size):
    fields = READ[case][1]
    expected = by_hand(
        fresh(smooth),
        lambda total: shares(total, size, fields.get("micro_batch")),
        batch=fields["batch_size"],
        epochs=6,
    )
    for rank in request.getfixturevalue({2: "two", 3: "three"}[size]):
        norm, trace, observations, steps = rank["read"][case]["reading"]
        assert (norm, trace) == pytest.approx((expected["norm"], expected["trace"]), rel=1e-9)
        assert (observations, steps) == (expected["observations"], expected["steps"])


@pytest.mark.parametrize("case", READ)
def test_readings_of_the_noise_scale_leave_no_trace(two, three, case):
    for rank in (*two, *three):
        found = rank["read"][case]
        assert not found["dropped"]
        assert found["with"]["history"] == found["without"]["history"]
        assert all(torch.equal(found["with"]["params"][k], v) for k, v in found["without"]["params"].items())


def test_other_data_on_one_rank_are_refused_by_all(two):
    for rank in two:
        assert rank["refused"].startswith(
            "rank 1 has another problem or recipe than rank 0; give all processes the same"
        )


def test_ctrl_c_on_one_rank_stops_all(two):
    outcomes = {rank["interrupted"]["outcome"] for rank in two}
    assert len(outcomes) == 1
    assert outcomes.pop().startswith("interrupted at step")


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(two):
    assert {rank["diverged"]["outcome"] for rank in two} == {
        "diverged at step 4: the loss was nan; try a smaller lr or a warm-up"
    }


def test_resumed_by_another_number_of_processes(two, three, folder):
    del two
    straight = gengap.train(problem(normed), recipe(**STOPPED), evaluations=2)
    for rank in three:
        assert_equal(rank["resumed"], record(straight))
    file = folder / "alone"
    shutil.copy(folder / "interrupted", file)
    resumed = gengap.train(problem(normed, loss=Counted()), recipe(**STOPPED), evaluations=2, checkpoint=file)
    assert_equal(record(resumed), record(straight))


def test_a_killed_rank_is_named_and_the_run_goes_on_without_it(three, folder):
    for rank in three:
        said, seconds = rank["left alone"]
        assert said.startswith("lost the connection to rank 2 of 3 (")
        assert said.endswith("start again with --resume, on any number of processes")
        assert seconds < 60  # not the timeout
    again = gengap.train(
        problem(normed, loss=Counted()), recipe(**STOPPED), evaluations=2, checkpoint=folder / "killed"
    )
    straight = gengap.train(problem(normed), recipe(**STOPPED), evaluations=2)
    assert again.outcome.kind == "finished"
    assert_equal(record(again), record(straight))


def test_shares_cover_a_batch_and_keep_units_whole():
    for samples in range(25):
        for size in (1, 2, 3, 5):
            for unit in (1, 2, 4):
                parts = [Ranks(rank, size).share(samples, unit) for rank in range(size)]
                assert [parts[0][0], *(stop for _, stop in parts)] == [*(start for start, _ in parts), samples]
                assert all(start % unit == 0 or start == samples for start, _ in parts)
                units = [math.ceil((stop - start) / unit) for start, stop in parts]
                assert max(units) - min(units) <= 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fields", [{"batch_size": 13}, {"batch_size": 18, "ghost_batch": 8}, {"batch_size": 39}])
def test_the_shares_of_an_epoch_are_its_batches(streamed, fields):
    kept = problem(train=Rows(*points()), memory_limit=1) if streamed else problem()
    how = {"recipe": recipe(**fields), "epoch": 1, "position": 0, "step": 4, "current": 0, "augment": None}
    train = kept.samples("train").to(torch.device("cpu"), torch.float64)
    assert type(train).__name__ == ("Streamed" if streamed else "InMemory")
    whole = list(rest_of_epoch(train, ranks=ALONE, **how))
    parts = [list(rest_of_epoch(train, ranks=Ranks(rank, 3), **how)) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sum(len(share) for share in shares) == len(batch) == batch.total
        for name in ("inputs", "targets", "indices"):
            assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(batch, name))
        assert all(share.total == batch.total and share.step == batch.step for share in shares)
        assert [share.offset for share in shares] == [sum(len(before) for before in shares[:rank]) for rank in range(3)]


def test_alone_nothing_is_said():
    with find_ranks() as ranks:
        assert (ranks.rank, ranks.size, ranks.share(7)) == (0, 1, (0, 7))
        assert ranks.largest([3, 1]) == [3, 1]
        assert ranks.first(lambda: 5) == 5
    assert ALONE.size == 1


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(gengap.BadInput, match="WORLD_SIZE is set but RANK is not; start with torchrun"), find_ranks():
        pass


def test_without_gpus_cuda_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(gengap.BadInput, match="every process needs a GPU of its own; give 'cuda'"),
        find_ranks("cuda:1"),
    ):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(gengap.BadInput, match="has no GPU of its own"), find_ranks("cuda"):
            pass


def test_kfac_needs_samples_on_every_process():
    from gengap.training.sharing import check_sharing

    with pytest.raises(gengap.BadInput, match="a batch of 1 samples leaves one of 2 processes without any, and kfac"):
        check_sharing(problem(), recipe(optimizer="kfac", batch_size=13), Ranks(0, 2))


def test_idle_processes_are_told():
    from gengap.training.sharing import told_of_sharing

    few = recipe(batch_size=8, ghost_batch=4)
    assert list(told_of_sharing(few, Ranks(0, 3), None)) == [
        "only 2 of 3 processes have work: a batch has 8 samples, 4 of which stay together"
    ]
    assert not list(told_of_sharing(few, Ranks(0, 2), None))
