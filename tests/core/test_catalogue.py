"""Oracle: what a reader of the message needs: the wrong name, the right ones, and which half of a builder is wrong."""

import inspect
import subprocess
import sys

import pytest

from gengap.core.catalogue import DATA, NETWORKS, find, resolve
from gengap.core.environment import environment
from gengap.core.errors import BadInput


@pytest.mark.parametrize(("kind", "entries"), [("network", NETWORKS), ("data set", DATA)], ids=["networks", "data"])
def test_an_unknown_name_lists_the_known(kind, entries):
    with pytest.raises(BadInput) as caught:
        find(kind, entries, "mnits")
    text = str(caught.value)
    assert f"there is no {kind} called 'mnits'" in text
    assert all(name in text for name in entries)
    assert "\n" not in text
    for name, entry in entries.items():
        assert find(kind, entries, name) is entry


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        ("nothing", "'nothing' names no function; write it as package.module:function"),
        (":f", "names no function"),
        ("math:", "names no function"),
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("math:no_such_function", "module 'math' has no function 'no_such_function'"),
        ("math:pi", "module 'math' has no function 'pi'"),
    ],
)
def test_a_builder_that_builds_nothing(builder, says):
    with pytest.raises(BadInput, match=says) as caught:
        resolve(builder)
    assert "\n" not in str(caught.value)


def test_a_builder_is_imported():
    import math

    assert resolve("math:sqrt") is math.sqrt


@pytest.mark.parametrize("name", [*NETWORKS, *DATA])
def test_every_builder_is_there(name):
    assert callable(resolve({**NETWORKS, **DATA}[name].builder))


@pytest.mark.parametrize("name", DATA)
def test_data_go_with_a_network_that_fits(name):
    data = DATA[name]
    network = NETWORKS[data.network]
    takes = inspect.signature(resolve(network.builder)).parameters
    assert network.tokens == data.tokens
    assert network.input_shape == data.input_shape or "input_shape" in takes
    assert network.classes == data.classes or "classes" in takes


def test_what_cannot_be_fetched_says_how_it_is_obtained():
    from gengap.data.fetch import SOURCES

    for name, entry in DATA.items():
        assert bool(entry.obtain) == (bool(entry.files) and name not in SOURCES)


def test_the_lower_layers_load_no_torch():
    """Listing, planning and keeping take no two seconds of import."""
    code = (
        "import sys, gengap.core.catalogue, gengap.core.recipe, gengap.core.environment, gengap.store.store, "
        "gengap.studies.verdict, gengap.schedules.budget; "
        "gengap.core.environment.environment(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_environment_is_known():
    found = environment()
    assert found["python"] == sys.version.split()[0]
    assert found["cores"] >= 1
    assert all(found[name] for name in ("gengap", "torch", "numpy", "scipy", "scikit-learn", "system", "processor"))
