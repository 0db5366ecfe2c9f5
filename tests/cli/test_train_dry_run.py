"""Oracle: the folder stays as it was, and the recipe printed is the recipe asked for."""

import json

from typer.testing import CliRunner

from gengap.cli import app


def test_a_dry_run_of_train_prints_and_keeps_nothing(tmp_path):
    options = ["--network", "mlp", "--epochs", "3", "--batch-size", "10%", "--out", str(tmp_path / "run"), "--dry-run"]
    made = CliRunner().invoke(app, ["train", *options])
    assert made.exit_code == 0
    first, last = made.stdout.strip().splitlines()
    assert json.loads(first)["batch_size"] == 100
    assert "30 steps" in last
    assert "nothing was trained" in last
    assert not list(tmp_path.iterdir())
