import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from gengap.cli import app

TINY = ["--small", "4", "--large", "40", "--optimizer", "sgd", "--lr", "0.3", "--epochs", "2", "--points", "3"]


def call(*words):
    """Run a command in this process; what it raises beyond its exit code is a failure of the test."""
    said = [str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gengap", *said])
        found = CliRunner().invoke(app, said)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return SimpleNamespace(
        code=found.exit_code, out=found.stdout, err=found.stderr, json=lambda: json.loads(found.stdout)
    )


@pytest.fixture
def gengap(tmp_path, monkeypatch):
    """The command line, in an empty folder and with nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENGAP_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return call


@pytest.fixture(scope="session")
def anywhere():
    """The command line, in whatever folder the test is."""
    return call


@pytest.fixture(scope="session")
def tiny():
    return TINY


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """One comparison that other tests read: its folder, and what the command said."""
    folder = tmp_path_factory.mktemp("done") / "out"
    said = call("compare", "--problem", "cli_problems:blobs", *TINY, "--seeds", 2, "--out", folder, "--json")
    return SimpleNamespace(folder=folder, said=said)
