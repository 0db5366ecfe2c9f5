"""Oracle: what each process said it had kept, before it was killed or beside another one."""

import signal

import pytest
from ledgers_at_hand import program, whole

from gengap.store.store import Store

pytestmark = pytest.mark.ranks

KEEP = """
with Store(folder) as store:
    for i in range(first, last):
        store.add_run(row(i), weights(i))
        print(i, flush=True)
"""

HOLD = """
import time
with Store(folder) as store, store.claim("key0000") as granted:
    print(granted, flush=True)
    time.sleep(60)
"""

MAKE = """
import time
for i in range(15):
    while time.time() < first / 1000 + i * 0.05:
        pass
    with Store(f"{folder}/{i}") as store:
        store.remember(f"from {last}", i)
print("made", flush=True)
"""


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_a_kill_loses_at_most_the_last_run(tmp_path, lines):
    with program(KEEP, tmp_path, 0, 5000) as process:
        said = [int(process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    assert said == list(range(len(said)))
    with Store(tmp_path, create=False) as store:
        kept = len(store.runs())
        assert kept in {len(said), len(said) + 1}
        for i in range(kept):
            whole(store, i)
    with program(KEEP, tmp_path, kept, kept + 2) as process:  # files without a row are written over
        process.wait(30)
    with Store(tmp_path, create=False) as store:
        assert len(store.runs()) == kept + 2
        whole(store, kept)


def test_two_processes_lose_nothing(tmp_path):
    with program(KEEP, tmp_path, 0, 15) as one, program(KEEP, tmp_path, 100, 115) as other:
        assert [one.wait(60), other.wait(60)] == [0, 0]
    with Store(tmp_path, create=False) as store:
        keys = [*range(15), *range(100, 115)]
        assert sorted(r.key for r in store.runs()) == [f"key{i:04d}" for i in keys]
        for i in keys:
            whole(store, i)


def test_three_processes_make_a_store_at_the_same_moment(tmp_path):
    import time

    soon = int(1000 * (time.time() + 2))
    processes = [program(MAKE, tmp_path, soon, n) for n in range(3)]
    found = [process.communicate(timeout=60)[0] for process in processes]
    assert found == ["made\n"] * 3
    for i in range(15):
        with Store(tmp_path / str(i), create=False) as store:
            assert [store.recall(f"from {n}") for n in range(3)] == [i] * 3


def test_a_claim_is_granted_once_and_ends_with_its_process(tmp_path):
    with Store(tmp_path) as store, program(HOLD, tmp_path) as holder:
        assert holder.stdout.readline() == "True\n"
        with store.claim("key0000") as granted:
            assert not granted
        with store.claim("key0001") as granted:
            assert granted
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with store.claim("key0000") as granted:
            assert granted
        with store.claim("key0000") as granted:
            assert granted


def test_a_claim_is_refused_to_a_second_store_of_one_process(tmp_path):
    with Store(tmp_path) as store, Store(tmp_path) as other:
        with store.claim("key0000") as first, other.claim("key0000") as second:
            assert (first, second) == (True, False)
        with other.claim("key0000") as granted:
            assert granted


def test_a_claim_ends_with_an_error(tmp_path):
    with Store(tmp_path) as store:
        with pytest.raises(ZeroDivisionError), store.claim("key0000"):
            1 / 0  # noqa: B018
        with store.claim("key0000") as granted:
            assert granted
