# Oracles: the system's own account of a fresh process (VmHWM, VmRSS); sizes of tensors counted by hand.
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gengap.core.errors import BadInput
from gengap.measures import memory as m
from gengap.measures.curvature.operators import hessian
from gengap.measures.live_bytes import LiveBytes
from gengap.measures.pass_cost import pass_cost
from gengap.measures.session import measuring
from gengap.problem.from_model import loss_function

MIB = 2**20
linux = pytest.mark.skipif(not m.CLEAR.exists(), reason="the system does not tell a process's peak")


@linux
def test_a_product_stays_below_its_limit_and_is_the_same():
    script = Path(__file__).with_name("memory_of_a_product.py")
    done = subprocess.run([sys.executable, script, "200 MiB", "4 GiB"], capture_output=True, text=True, check=True)
    limited, free = json.loads(done.stdout)
    assert max(limited["peak"], limited["real"]) < 200 * MIB
    assert free["peak"] > 600 * MIB
    assert limited["peak"] > 50 * MIB
    assert torch.tensor(limited["v"]) == pytest.approx(torch.tensor(free["v"]), rel=1e-4, abs=1e-6)


@linux
def test_the_peak_of_a_block_is_read_and_blocks_may_be_nested():
    cpu = torch.device("cpu")
    with m.PeakMemory(cpu) as outer:
        torch.ones(96 * MIB // 4)
        with m.PeakMemory(cpu) as inner:
            torch.ones(32 * MIB // 4)
        with m.PeakMemory(cpu) as idle:
            pass
    assert 95.5 <= outer.bytes / MIB < 100
    assert 31.5 <= inner.bytes / MIB < 36  # the system counts in steps of 64 pages
    assert idle.bytes / MIB < 4
    assert not m.PeakMemory.active


def test_a_peak_that_the_system_does_not_tell_is_none(monkeypatch):
    monkeypatch.setattr(m, "CLEAR", Path("/nowhere/clear_refs"))
    with measuring(lambda w: w.square().sum(), torch.ones(3), passes="gradient") as session:
        first = session.conditions()
        assert session.conditions().peak_memory is first.peak_memory is None
    assert not m.PeakMemory.active


def test_live_bytes_are_those_of_tensors_that_are_held():
    x = torch.ones(1000, dtype=torch.float64)
    with LiveBytes() as live:
        a = x + 1
        assert live.now == 8000
        a = torch.cat([a, a])
        view = a[:10]
        assert (live.now, live.peak) == (16000, 24000)
        a += 1
        del a
        assert live.now == 16000
        del view
        assert live.now == 0
    assert live.peak == 24000


def test_live_bytes_count_what_a_graph_saves_and_a_backward_pass_makes():
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    with LiveBytes() as live:
        y = x.tanh().tanh().sum()
        assert live.now == 2 * 8000 + 8
        torch.autograd.grad(y, x)
        assert live.now == 8
    assert 3 * 8000 <= live.peak < 3 * 8000 + 100  # two of the outputs and gradients beside the one that is made


def network(width=64, *layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), *layers, nn.Tanh(), nn.Linear(width, 3)).double()


def loss_of(model, n=400, **options):
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(n, 8, generator=rng), torch.randint(3, (n,), generator=rng)
    return loss_function(model, "cross_entropy", data, **options), dict(model.named_parameters())


@pytest.mark.parametrize("passes", ["value", "gradient", "product"])
def test_what_a_sample_costs_does_not_depend_on_how_many_there_are_or_on_the_width_of_the_rest(passes):
    cost = pass_cost(*loss_of(network()), passes)
    assert cost == pass_cost(*loss_of(network(), n=50), passes)
    assert cost == replace(cost, kept=cost.kept if passes == "product" else 0)
    # Width 64 in float64 is 512 bytes an activation: before and after tanh in any pass, and more with derivatives.
    least = {"value": 2, "gradient": 3, "product": 8}[passes]
    assert least * 512 <= cost.peak < 40 * 512
    wide = pass_cost(*loss_of(network(width=640)), passes)
    assert 8 < wide.peak / cost.peak < 10
    assert pass_cost(*loss_of(network(), n=1), passes).peak == 0


def test_less_memory_means_smaller_chunks_fewer_graphs_and_the_same_product():
    loss, params = loss_of(network())
    found = []
    for limit in (150_000, 400_000, 20_000_000, 2**31):
        with measuring(loss, params, passes="product", memory_limit=limit) as session:
            operator = hessian(session)
            v = torch.ones(session.weights, dtype=torch.float64)
            products = operator(v), operator(v)
            assert torch.equal(*products)
            found.append((session.conditions().chunk_size, operator.kept, products[0]))
    chunks, kept, products = zip(*found, strict=True)
    assert 1 <= chunks[0] < chunks[1] < chunks[2] == chunks[3] == 400
    assert (kept[0], kept[3]) == (0, 1)
    assert all(torch.allclose(p, products[-1], rtol=1e-12, atol=1e-15) for p in products)


def test_a_limit_that_is_too_small_says_what_would_do():
    loss, params = loss_of(network())

    def chunk(limit):
        with measuring(loss, params, passes="product", vectors=3, memory_limit=limit) as session:
            return session.conditions().chunk_size

    with pytest.raises(
        BadInput, match=r"^memory_limit is 1 KiB, but this measure needs at least [\d.]+ KiB \([\d.]+ KiB of"
    ) as e:
        chunk(1024)
    least = float(str(e.value).split("at least ")[1].split(" KiB")[0])
    assert chunk(f"{1.01 * least:.2f} KiB") == 1
    with pytest.raises(BadInput):
        chunk(f"{0.98 * least:.2f} KiB")


@pytest.mark.parametrize("mode", ["batch", "recompute", "running"])
def test_evaluation_batches_of_batch_norm_are_not_cut(mode):
    loss, params = loss_of(network(64, nn.BatchNorm1d(64)), batch_norm=mode)
    if mode == "running":
        with measuring(loss, params, passes="product", memory_limit="300 KiB") as session:
            assert session.conditions().chunk_size < 100
        return
    says = "batch norm uses the statistics of evaluation batches of 400 samples, which cannot be cut to"
    with pytest.raises(BadInput, match=says), measuring(loss, params, passes="product", memory_limit="300 KiB"):
        pass


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1536, "1.5 KiB"), (200 * MIB, "200 MiB"), (5 * 2**40, "5.12e+03 GiB")],
)
def test_bytes_are_readable(size, text):
    assert m.readable(size) == text
