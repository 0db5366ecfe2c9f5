"""What a folder of measures keeps, and what goes on from it. Oracles: the files before and after, and measures taken anew."""

import json
from dataclasses import replace

import pytest
from measured_problems import trained

from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Message
from gengap.measurement.preparation import prepare
from gengap.measurement.run import measure, take
from gengap.measurement.settings import Settings
from gengap.measurement.subject import load_subject

CHEAP = {"only": ["loss", "distance"]}


def test_each_measure_is_a_file_and_resuming_takes_only_what_is_missing(made, run, tmp_path, monkeypatch):
    first = measure(made, run, out=tmp_path, **CHEAP)
    files = {path.name: path.read_bytes() for path in (tmp_path / "measures").iterdir()}
    assert set(files) == {"measured.json", "train.json", "test.json", "distance.json"}
    assert json.loads((tmp_path / "measure.json").read_text()) == first.document
    with pytest.raises(BadInput, match=r"holds measures already; go on with them by --resume"):
        measure(made, run, out=tmp_path, **CHEAP)
    taken = []
    monkeypatch.setattr("gengap.measurement.groups.loss.performance", lambda *_, **__: pytest.fail("taken again"))
    again = measure(made, run, out=tmp_path, only=["loss", "distance", "noise"], resume=True, listen=taken.append)
    assert {path.name: path.read_bytes() for path in (tmp_path / "measures").iterdir() if path.name in files} == files
    assert len([event for event in taken if isinstance(event, Message)]) == len(again.document["measures"]) - 3
    kept = [one for one in again.document["numbers"] if one["measure"] in {"train", "test", "distance"}]
    assert kept == first.document["numbers"]


OTHER = {
    "seed": ({"seed": 1}, "holds 'Distance from the start' made with seed 0 and not 1; repeat the settings"),
    "weights": ({"params": ("0.*",)}, r"made with params of all and not 0\.\*"),
    "samples": ({"samples": 30}, "holds measures on 60 training samples and not 30; repeat --samples 60"),
}


@pytest.mark.parametrize("case", OTHER)
def test_numbers_of_other_settings_are_not_mixed(case, made, run, tmp_path):
    more, says = OTHER[case]
    measure(made, run, out=tmp_path, **CHEAP)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    for only in (CHEAP, {"only": ["noise"]}):
        with pytest.raises(BadInput, match=says):
            measure(made, run, out=tmp_path, resume=True, **only, **more)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_a_setting_of_measures_that_are_not_asked_for_may_differ(made, run, tmp_path):
    measure(made, run, out=tmp_path, only=["loss"], momentum=0.9)
    more = measure(made, run, out=tmp_path, only=["distance"], radii=(0.1,), resume=True).document
    assert {m["name"] for m in more["measures"]} == {"train", "test", "distance"}


def test_what_was_finished_stays_in_the_document_whatever_is_asked_for_next(made, run, tmp_path):
    first = measure(made, run, out=tmp_path, only=["loss", "noise"]).document
    second = measure(made, run, out=tmp_path, only=["distance"], resume=True).document
    names = [{m["name"]: m for m in document["measures"]} for document in (first, second)]
    assert set(names[1]) == {*names[0], "distance"}
    assert all(names[1][name] == names[0][name] for name in names[0])
    assert json.loads((tmp_path / "measure.json").read_text()) == second


def test_a_number_on_more_samples_is_kept_when_time_allows_only_fewer(made, run, tmp_path):
    measure(made, run, out=tmp_path, only=["loss"])
    prepared = prepare(load_subject(made, run), Settings(groups=("loss",)), tmp_path, resume=True)
    shorter = take(replace(prepared, task=prepared.task.on(20))).document
    assert {one["samples"] for one in shorter["numbers"]} == {60}


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "of another version": '{"name": "train", "found": 1}',
    "with another record": None,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_this_version_cannot_read_is_measured_again(case, made, run, tmp_path):
    first = measure(made, run, out=tmp_path, **CHEAP).document
    file = tmp_path / "measures" / "train.json"
    text = BROKEN[case] or json.dumps(json.loads(file.read_text()) | {"record": {"nats": 0.3}})
    file.write_text(text)
    heard = []
    again = measure(made, run, out=tmp_path, resume=True, listen=heard.append, **CHEAP).document
    assert again["numbers"] == first["numbers"]
    said = [event.text for event in heard if isinstance(event, Message) and event.warning]
    assert said == [f"{file} is damaged or was written by another version, and is not used"]


def test_a_folder_of_another_version_is_measured_again(made, run, tmp_path):
    first = measure(made, run, out=tmp_path, **CHEAP).document
    index = tmp_path / "measures" / "measured.json"
    index.write_text('["gengap.measures/0"]')
    again = measure(made, run, out=tmp_path, resume=True, **CHEAP).document
    assert again["numbers"] == first["numbers"]
    assert json.loads(index.read_text())["format"] == "gengap.measures/1"
    index.write_text("{")
    with pytest.raises(BadInput, match=r"measured.json cannot be read"):
        measure(made, run, out=tmp_path, resume=True, **CHEAP)


def test_a_folder_of_another_checkpoint_is_refused(made, run, tmp_path):
    measure(made, run, out=tmp_path, **CHEAP)
    with pytest.raises(BadInput, match="holds measures of another checkpoint"):
        measure(made, trained(made, seed=3), out=tmp_path, resume=True, **CHEAP)


def test_ctrl_c_keeps_what_was_finished(made, run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    first = measure(made, run, out=tmp_path, only=["noise"])
    monkeypatch.setattr("gengap.measurement.groups.distance.distance", stop)
    with pytest.raises(Interrupted, match="interrupted in 'Distance from the start'; 2 of 6 measures are there"):
        measure(made, run, out=tmp_path, resume=True, **CHEAP)
    assert {"train.json", "test.json"} < {path.name for path in (tmp_path / "measures").iterdir()}
    found = json.loads((tmp_path / "measure.json").read_text())
    assert found["interrupted"].startswith("interrupted in 'Distance from the start'")
    assert {m["name"] for m in found["measures"]} == {"train", "test", *(m["name"] for m in first.document["measures"])}
    assert {"title": "Distance from the start", "why": "it was interrupted"}.items() <= found["left_out"][-1].items()
    monkeypatch.undo()
    whole = measure(made, run, **CHEAP).document
    resumed = measure(made, run, out=tmp_path, resume=True, **CHEAP).document
    assert [one for one in resumed["numbers"] if one["measure"] in {"train", "test", "distance"}] == whole["numbers"]
    assert resumed["interrupted"] == ""


def test_ctrl_c_before_anything_is_finished_writes_nothing(made, run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gengap.measurement.groups.loss.performance", stop)
    with pytest.raises(Interrupted, match="; 0 of 3 measures are there"):
        measure(made, run, out=tmp_path / "out", **CHEAP)
    assert not (tmp_path / "out" / "measure.json").exists()


def test_a_grid_goes_on_where_it_was(made, run, tmp_path):
    count = 0

    def stop(event):
        nonlocal count
        if not isinstance(event, Message):
            count += 1
            if count == 30:  # in the second of the two slices
                raise KeyboardInterrupt

    only = {"only": ["landscape"]}
    with pytest.raises(Interrupted, match="of 2 measures are there"):
        measure(made, run, out=tmp_path, listen=stop, **only)
    assert (tmp_path / "points").is_dir()
    heard = []
    resumed = measure(made, run, out=tmp_path, resume=True, listen=heard.append, **only).document
    record = next(m["record"] for m in resumed["measures"] if m["name"] == "slice_2d")
    assert record["resumed"] >= 1
    whole = measure(made, run, **only).document
    expected = next(m["record"] for m in whole["measures"] if m["name"] == "slice_2d")
    assert record["grid"] == expected["grid"]
