# Oracle: the same measurement made straight through, and a count of the evaluations that a resumed one makes.
import json

import pytest
import torch

from gengap.core.errors import BadInput, DamagedFile, Interrupted
from gengap.measures.landscape.paths import interpolate
from gengap.measures.landscape.plane import plane
from gengap.measures.landscape.slices import slice_1d, slice_2d
from gengap.measures.landscape.trajectory import trajectory

RNG = torch.Generator().manual_seed(8)
W = [torch.randn(3, 2, dtype=torch.float64, generator=RNG) for _ in range(4)]


class Counted:
    """A loss that counts its evaluations."""

    def __init__(self, scale=1.0):
        self.scale, self.calls = scale, 0

    def __call__(self, w):
        self.calls += 1
        return self.scale * w.pow(3).sum().exp() + w[0, 0] / 3


def stop_after(points, what=None):
    def listen(event):
        if event.done == points and what in {None, event.what}:
            raise KeyboardInterrupt

    return listen


def path_of(loss, **options):
    return interpolate(loss, a=W[0], b=W[1], check=False, **options)


MEASURES = {
    "path": (path_of, lambda r: r.losses, 25, "path"),
    "sine": (lambda f, **o: path_of(f, curve="sine", **o), lambda r: r.losses, 25, "path"),
    "plane": (
        lambda f, **o: plane(f, a=W[0], b=W[1], c=W[2], points=3, check=False, **o),
        lambda r: (r.grid, r.corners),
        12,
        "plane",
    ),
    "slice": (lambda f, **o: slice_1d(f, W[0], check=False, **o), lambda r: r.losses, 25, "slice"),
    "square": (
        lambda f, **o: slice_2d(f, W[0], x=[-1, 0, 1], y=[0, 1], check=False, **o),
        lambda r: r.grid,
        6,
        "slice",
    ),
    "trajectory": (
        lambda f, **o: trajectory(W, losses=f, points=3, check=False, **o),
        lambda r: r.grid,
        9,
        "trajectory",
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_resumed_equals_straight_through(name, tmp_path):
    measure, numbers, points, what = MEASURES[name]
    straight = measure(Counted())
    path = tmp_path / "points.jsonl"
    first, second, third = Counted(), Counted(), Counted()
    with pytest.raises(Interrupted, match=r"points are kept in .*points.jsonl, run the same again") as stopped:
        measure(first, resume=path, listen=stop_after(4, what))
    assert isinstance(stopped.value.__cause__, KeyboardInterrupt)
    resumed = measure(second, resume=path)
    assert numbers(resumed) == numbers(straight)
    assert first.calls + second.calls == points + 2  # one more in each, at the base
    done = first.calls - 1
    assert (resumed.resumed if name in {"path", "sine"} else resumed.conditions.resumed) == done
    again = measure(third, resume=path)
    assert numbers(again) == numbers(straight)
    assert third.calls == 1


def test_without_a_file_ctrl_c_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        path_of(Counted(), listen=stop_after(3))


def test_a_line_torn_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "points.jsonl"
    straight = path_of(Counted(), resume=path)
    content = path.read_bytes()
    for cut in (1, 7, 30):
        path.write_bytes(content[:-cut])
        loss = Counted()
        assert path_of(loss, resume=path).losses == straight.losses
        assert loss.calls == 2
        assert path.read_bytes() == content


def test_a_grid_can_be_refined(tmp_path):
    path, loss = tmp_path / "points.jsonl", Counted()
    path_of(loss, resume=path, alphas=[0, 0.5, 1])
    finer = path_of(loss, resume=path, alphas=[0, 0.25, 0.5, 0.75, 1])
    assert finer.resumed == 3
    assert finer.losses == path_of(Counted(), alphas=[0, 0.25, 0.5, 0.75, 1]).losses


def test_losses_that_are_not_finite_are_kept(tmp_path):
    path = tmp_path / "points.jsonl"

    def loss(w):
        return torch.log(w[0, 0] - W[0][0, 0] + 1)

    found = [
        interpolate(loss, a=W[0], b=W[0] - 5, alphas=[0, 1], resume=path, listen=listen)
        for listen in (lambda e: None, lambda e: None)
    ]
    assert found[0].losses == found[1].losses
    assert found[0].losses[0][1] is None
    assert found[1].resumed == 2


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda p: interpolate(Counted(), a=W[0], b=W[2], resume=p), "its weights or directions differ"),
        (lambda p: path_of(Counted(), curve="sine", resume=p), "its measure differ"),
        (lambda p: path_of([Counted(), Counted()], resume=p), "its losses differ"),
        (lambda p: path_of(Counted(1.01), resume=p), "points of another loss or other data: where it began"),
        (lambda p: slice_1d(Counted(), W[0], resume=p), "its measure, weights or directions differ"),
    ],
)
def test_a_file_of_another_measurement_is_refused_and_kept(other, sentence, tmp_path):
    path = tmp_path / "points.jsonl"
    path_of(Counted(), resume=path)
    before = path.read_bytes()
    with pytest.raises(BadInput, match=sentence):
        other(path)
    assert path.read_bytes() == before


def test_buffers_belong_to_the_settings(tmp_path):
    class Offset(Counted):
        buffers: dict = {}  # noqa: RUF012

        def value(self, params):
            return float(self(params["w"])) + float(self.buffers.get("m", 0))

        value_and_grad = value

        def score(self, params):
            return type("S", (), {"loss": self.value(params), "accuracy": 50.0})()

        def describe(self):
            return {"data": "test", "samples": 3}

        def with_buffers(self, buffers):
            self.buffers = dict(buffers)
            return self

    path = tmp_path / "points.jsonl"

    def measure(m):
        ends = [{"w": w} for w in W[:2]]
        zero, other = {"m": torch.zeros(1)}, {"m": torch.full((1,), m)}
        return interpolate(Offset(), a=ends[0], b=ends[1], alphas=[0, 1], a_buffers=zero, b_buffers=other, resume=path)

    first = measure(1.0)
    assert measure(1.0).accuracies == first.accuracies == ((50.0, 50.0),)
    with pytest.raises(BadInput, match="its buffers differ"):
        measure(2.0)


@pytest.mark.parametrize("content", ["a diary, not to be lost\n", '{"format": "other"}\n', "no line end"])
def test_a_file_of_something_else_is_refused_and_kept(content, tmp_path):
    path = tmp_path / "diary.txt"
    path.write_text(content)
    with pytest.raises(DamagedFile, match="is not a file of points"):
        path_of(Counted(), resume=path)
    assert path.read_text() == content


def test_damage_in_the_middle_is_said(tmp_path):
    path = tmp_path / "points.jsonl"
    path_of(Counted(), resume=path)
    lines = path.read_text().splitlines()
    lines[3] = lines[3][:10]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DamagedFile, match="is damaged in line 4"):
        path_of(Counted(), resume=path)


def test_folders_are_made_and_an_impossible_one_is_refused(tmp_path):
    path_of(Counted(), resume=tmp_path / "deep" / "points.jsonl", alphas=[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        path_of(Counted(), resume=tmp_path / "file" / "points.jsonl", alphas=[0])


def test_the_file_is_json_lines(tmp_path):
    path = tmp_path / "points.jsonl"
    path_of(Counted(), resume=path, alphas=[0, 0.5])
    head, *points = [json.loads(line) for line in path.read_text().splitlines()]
    assert head["format"] == "gengap.points/1"
    assert [p["at"] for p in points] == [[0.0], [0.5]]
