"""Loops of three public styles on two gloo processes, sound and with one fault each. Oracle: the fault that was planted."""

import numbers_loop
import pytest
from planted import TWO_PROCESSES, loop

from gengap.diagnosis.checks import processes
from gengap.diagnosis.doctor import ACCUMULATE, if_possible, singles
from gengap.diagnosis.evidence import Evidence
from gengap.diagnosis.loop import Loop
from gengap.diagnosis.processes import Job, follow_together
from gengap.diagnosis.run import follow, watched_data
from gengap.diagnosis.trace import Sizes

pytestmark = pytest.mark.ranks
SAMPLES, BATCH = 19, 4
ALONE = Loop(numbers_loop.train, numbers_loop.make_model, numbers_loop.make_data)


@pytest.fixture(scope="module")
def together():
    """The traces of all loops, with and without accumulation, from processes that are started once."""
    sizes = (Sizes(BATCH), Sizes(BATCH, ACCUMULATE))
    jobs = [Job(it, size, SAMPLES, 0) for it in (*(loop(*name) for name in TWO_PROCESSES), ALONE) for size in sizes]
    traces = follow_together(jobs, 2)
    return dict(zip([*TWO_PROCESSES, "alone"], zip(traces[::2], traces[1::2], strict=True), strict=True))


def findings(it, ranks, accumulated):
    data = watched_data(it, SAMPLES, 0)
    evidence = Evidence(
        samples=SAMPLES,
        singles=singles(it, data, 0),
        everything=follow(it, data, Sizes(SAMPLES), seed=0),
        accumulated=if_possible(it, data, Sizes(BATCH, ACCUMULATE), 0),
        whole="not run",
        paired=if_possible(it, data, Sizes(2 * BATCH), 0),
        ranks=ranks,
        accumulated_ranks=accumulated,
    )
    return processes.findings(evidence)


@pytest.mark.parametrize(("style", "fault"), TWO_PROCESSES, ids=str)
def test_a_planted_fault_is_found_and_nothing_else(style, fault, together):
    found = findings(loop(style, fault), *together[style, fault])
    assert {finding.name for finding in found if finding.state == "fault"} == TWO_PROCESSES[style, fault]
    unchecked = {finding.name for finding in found if finding.state == "not checked"}
    assert unchecked == ({"order of processes"} if style == "nanogpt" else set())


def test_a_loop_that_knows_of_one_process_is_not_compared(together):
    found = findings(ALONE, *together["alone"])
    assert {finding.state for finding in found} == {"not checked"}
    assert "asks nothing of torch.distributed" in found[0].compared
