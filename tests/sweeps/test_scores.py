"""Oracle: the network itself in training mode on the whole split, which normalises with the statistics of the batch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gengap
from gengap import BadInput, Problem, Store, Study
from gengap.comparison.compare import run_comparison, stored_comparison
from gengap.comparison.question import comparison_study
from gengap.sweeps.plan import tasks

RECIPE = {"optimizer": "sgd", "lr": 0.05, "budget": {"epochs": 2}}


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture
def problem():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=rng)
    y = (x.sum(1) > 0).long()
    return Problem(model=net, loss="cross_entropy", train=(x[:40], y[:40]), test=(x[40:], y[40:]))


def study(problem, **changed):
    given = {"small": 10, "large": 40, "seeds": 2, "recipe": RECIPE, "sharpness": None, "interpolation": None}
    return comparison_study(problem, **given | changed)


def test_the_table_uses_the_statistics_that_it_names(problem, tmp_path):
    plan = study(problem)
    found = run_comparison(plan, problem, tmp_path)
    assert found.document["problem"]["batch_norm"] == "batch"
    with Store(tmp_path, create=False) as store:
        for run in found.document["large"]["runs"]:
            model = net()
            state = store.weights(run["key"], "final") | store.weights(run["key"], "buffers")
            model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
            model.train()
            for split, (x, y) in (("train", problem.train), ("test", problem.test)):
                outputs = model(x)
                assert run[f"{split}_loss"] == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-5)
                assert run[f"{split}_accuracy"] == pytest.approx(100 * (outputs.argmax(1) == y).float().mean().item())
            assert run["running"]["train_loss"] == run["history"]["train_loss"][-1] != run["train_loss"]


def test_running_averages_are_those_of_the_history(problem, tmp_path):
    found = run_comparison(study(problem, score={"batch_norm": "running"}), problem, tmp_path)
    assert found.document["problem"]["batch_norm"] == "running"
    for run in found.document["small"]["runs"]:
        assert run["test_loss"] == pytest.approx(run["history"]["test_loss"][-1], rel=1e-6)


def test_averages_that_lag_are_remarked(problem):
    found = gengap.compare(problem, small=10, large=40, seeds=2, recipe=RECIPE, sharpness=None, interpolation=None)
    assert any("running averages" in remark for remark in found.document["unresolved"])


def test_a_run_that_lost_its_weights_is_made_again(problem, tmp_path):
    plan = study(problem)
    before = run_comparison(plan, problem, tmp_path)
    key = tasks(plan, problem)[0].key
    (tmp_path / "runs" / key / "final.safetensors").unlink()
    after = run_comparison(plan, problem, tmp_path)
    assert (tmp_path / "runs" / key / "final.safetensors").exists()
    assert [r["test_loss"] for r in after.document["small"]["runs"]] == [
        r["test_loss"] for r in before.document["small"]["runs"]
    ]


@pytest.mark.parametrize(
    ("changed", "what"), [({"small": 20}, "batch sizes"), ({"recipe": {**RECIPE, "lr": 0.01}}, "recipe fields")]
)
def test_another_comparison_is_not_put_into_the_same_folder(problem, tmp_path, changed, what):
    run_comparison(study(problem), problem, tmp_path)
    before = (tmp_path / "study.toml").read_text()
    with pytest.raises(BadInput, match=f"other {what}"):
        run_comparison(study(problem, **changed), problem, tmp_path)
    assert (tmp_path / "study.toml").read_text() == before
    more = run_comparison(study(problem, seeds=3), problem, tmp_path)
    assert len(more.document["small"]["runs"]) == 3


def test_a_missing_score_is_missing_and_not_another_mode(problem, tmp_path):
    run_comparison(study(problem), problem, tmp_path)
    text = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace('batch_norm = "batch"', 'batch_norm = "recompute"', 1))
    found = stored_comparison(tmp_path)
    assert found.document["problem"]["batch_norm"] == "recompute"
    assert found.document["small"]["test_accuracy"] is None
    assert all(run["running"]["test_accuracy"] is not None for run in found.document["small"]["runs"])


def test_float64_inputs_are_rehearsed_too(tmp_path):
    x, y = torch.randn(101, 4, dtype=torch.float64), torch.arange(101) % 2
    problem = Problem(model=net, loss="cross_entropy", train=(x, y), test=(x, y))
    with pytest.raises(BadInput, match="makes a batch of one of the 101 samples"):
        run_comparison(study(problem, small=10, large=50), problem, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_the_same_comparison_written_differently_is_the_same(problem, tmp_path):
    recipe = {"optimizer": "adam", "lr": 0.01, "betas": (0.9, 0.95), "warmup": None, "budget": {"epochs": 1}}
    for _ in range(2):
        run_comparison(study(problem, recipe=recipe), problem, tmp_path)


def test_shares_in_a_study_and_its_claims_become_numbers(problem, tmp_path):
    plan = study(problem)
    fields = plan.model_dump(mode="json")
    fields["grid"]["batch_size"] = [10, "100%"]
    for claim in fields["claim"]:
        claim["compare"]["batch_size"] = [10, "100%"]
    found = run_comparison(Study(**fields), problem, tmp_path)
    assert "not run" not in found.verdict.values()
    assert "100%" not in (tmp_path / "study.toml").read_text()
