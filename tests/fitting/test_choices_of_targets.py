"""Targets that are chosen. Oracle: histories written by hand."""

from gengap.fitting.cells import cells_of
from gengap.fitting.choices import chosen_target
from gengap.fitting.table import RunRecord


def run(batch: int, start: float, end: float, budget: int = 2) -> RunRecord:
    history = ({"step": 0, "samples": 0, "test_accuracy": start}, {"step": 9, "samples": 90, "test_accuracy": end})
    return RunRecord(
        batch_size=batch,
        lr=0.1,
        test_accuracy=end,
        history=history,
        budget=f"{budget} epochs",
        budget_kind="epochs",
        budget_size=budget,
    )


def test_what_all_but_the_worst_reach_is_the_target() -> None:
    runs = [run(8 * 2**i, 10.0, 90.0 - i) for i in range(5)]
    assert chosen_target(runs, "test_accuracy", None).value == 87.0  # one in five is spared


def test_what_is_met_before_training_is_no_target() -> None:
    assert chosen_target([run(8, 12.0, 90.0), run(16, 12.0, 11.0)], "test_accuracy", None) is None


def test_cells_stand_by_the_length_of_their_budget() -> None:
    cells = cells_of([run(8, 1.0, 50.0, budget) for budget in (10, 9, 100)], "test_accuracy")
    assert [cell.budget for cell in cells] == ["9 epochs", "10 epochs", "100 epochs"]
