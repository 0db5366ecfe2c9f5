"""Oracle: TOML written by hand, read by tomllib, and itertools-free lists of the grid's cells."""

import tomllib
from pathlib import Path

import pytest

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.studies.study import (
    Claim,
    InterpolationSpec,
    Measures,
    ProblemSpec,
    Published,
    SharpnessSpec,
    Study,
    read_study,
)

TEXT = """
title = "Is the large batch worse?"
source = "Keskar et al. 2017"
evaluations = 7

[problem]
data = "digits"
network = "mlp"
options = { train_size = 500 }

[recipe]
optimizer = "adam"
lr = 1e-3
budget = { epochs = 3 }

[grid]
batch_size = [32, "100%"]
seed = [0, 1, 2]

[measures.sharpness]
radius = 5e-4
search = "paper"

[measures.interpolation]
points = 5

[[claim]]
measure = "test_accuracy"
text = "the large batch tests worse"
compare = { batch_size = [32, 500] }
expect = "first > second"
tolerance = 0.1

[[claim]]
measure = "sharpness"
where = { batch_size = 500 }
paper = { mean = 205.1, spread = 69.5, runs = 5 }
"""

MINIMAL = """
title = "t"
problem = { factory = "a.b:c" }
recipe = { lr = 0.1, batch_size = 8, budget = { steps = 4 } }
grid = {}
"""


def read(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def test_every_field_is_read(tmp_path):
    study = read(tmp_path, TEXT)
    assert study == Study(
        title="Is the large batch worse?",
        source="Keskar et al. 2017",
        evaluations=7,
        problem=ProblemSpec(data="digits", network="mlp", options={"train_size": 500}),
        recipe={"optimizer": "adam", "lr": 1e-3, "budget": {"epochs": 3}},
        grid={"batch_size": [32, "100%"], "seed": [0, 1, 2]},
        measures=Measures(
            sharpness=SharpnessSpec(radius=5e-4, search="paper"), interpolation=InterpolationSpec(points=5)
        ),
        claim=(
            Claim(
                measure="test_accuracy",
                text="the large batch tests worse",
                compare={"batch_size": (32, 500)},
                expect="first > second",
                tolerance=0.1,
            ),
            Claim(
                measure="sharpness",
                where={"batch_size": 500},
                paper=Published(mean=205.1, spread=69.5, runs=5),
            ),
        ),
    )


def test_defaults_are_pinned(tmp_path):
    study = read(tmp_path, MINIMAL)
    assert (study.format, study.source, study.evaluations, study.claim) == ("gengap.study/1", "", 20, ())
    assert study.measures == Measures(sharpness=None, interpolation=None)
    assert SharpnessSpec().model_dump() == {
        "radius": 1e-3,
        "search": "robust",
        "batch_norm": "batch",
        "samples": 10_000,
        "batch_size": 5_000,
    }
    assert InterpolationSpec().model_dump() == {
        "low": -1.0,
        "high": 2.0,
        "points": 25,
        "batch_norm": "batch",
        "batch_size": 5_000,
        "pairs": 1,
    }


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"measures": Measures(sharpness=SharpnessSpec(samples=0), interpolation=InterpolationSpec())},
        {"measures": Measures(sharpness=SharpnessSpec())},
        {"recipe": {"lr": 0.5, "budget": {"converged": {}}}},
        {"recipe": {"lr": 0.5}, "grid": {"batch_size": [4, 8], "budget": [{"epochs": 2}, {"converged": {}}]}},
        {"recipe": {}, "grid": {"batch_size": [4], "lr": [0.1], "budget": ["converged"]}},
        {"recipe": {"lr": 0.5, "batch_size": 3, "budget": "converged"}, "grid": {}},
        {
            "recipe": {
                "optimizer": "adam",
                "betas": [0.8, 0.9],
                "lr": 1,
                "budget": {"steps": 5},
                "warmup": {"epochs": 1},
            }
        },
        {"problem": ProblemSpec(name="made in Python")},
        {"title": 'quotes " and \\ and\nlines – ∇', "source": "", "claim": ()},  # noqa: RUF001
    ],
    ids=str,
)
def test_what_is_written_is_read_again(tmp_path, change):
    study = Study(**{**dict(read(tmp_path, TEXT)), **change})
    text = study.to_toml()
    again = read(tmp_path, text)
    assert again == study
    assert again.recipes() == study.recipes()
    assert again.to_toml() == text
    assert tomllib.loads(text)["format"] == "gengap.study/1"


def test_cells_are_in_the_order_of_the_grid(tmp_path):
    made = read(tmp_path, TEXT).recipes()
    assert [(r.batch_size, r.seed) for r in made] == [
        (32, 0),
        (32, 1),
        (32, 2),
        ("100%", 0),
        ("100%", 1),
        ("100%", 2),
    ]
    assert made[4] == Recipe(optimizer="adam", lr=1e-3, budget={"epochs": 3}, batch_size="100%", seed=1)


def test_a_grid_of_three_fields_has_the_last_one_fastest():
    study = Study(
        title="t",
        problem=ProblemSpec(data="digits"),
        recipe={"budget": {"epochs": 1}},
        grid={"seed": [1, 0], "lr": [0.1, 0.2], "batch_size": [2, 4]},
    )
    assert [(r.seed, r.lr, r.batch_size) for r in study.recipes()] == [
        (1, 0.1, 2),
        (1, 0.1, 4),
        (1, 0.2, 2),
        (1, 0.2, 4),
        (0, 0.1, 2),
        (0, 0.1, 4),
        (0, 0.2, 2),
        (0, 0.2, 4),
    ]


def test_an_empty_grid_is_one_run(tmp_path):
    assert read(tmp_path, MINIMAL).recipes() == [Recipe(lr=0.1, batch_size=8, budget={"steps": 4})]


def test_settings_of_a_measure_are_what_is_not_default():
    assert SharpnessSpec().settings == {}
    assert SharpnessSpec(radius=1e-3, samples=0).settings == {"samples": 0}
    assert SharpnessSpec(search="paper", batch_norm="running", batch_size=100).settings == {
        "search": "paper",
        "batch_norm": "running",
        "batch_size": 100,
    }
    assert InterpolationSpec(pairs=4, high=1.5).settings == {"high": 1.5}


REFUSED = [
    ('title = "t"', "this is no TOML [", "is not valid TOML"),
    ('title = "t"', "", "a study needs the field 'title'"),
    ('title = "t"', "title = 3", "title is 3"),
    ('title = "t"', 'title = "t"\ntitel = 1', "a study has no field 'titel'; did you mean 'title'?"),
    ('title = "t"', 'title = "t"\nformat = "gengap.study/2"', "format is 'gengap.study/2'"),
    ('title = "t"', 'title = "t"\nevaluations = 0', "evaluations is 0"),
    ('{ factory = "a.b:c" }', "{}", "a problem is either a data set of the catalogue (data) or a factory"),
    ('{ factory = "a.b:c" }', '{ factory = "a:b", data = "digits" }', "a problem is either"),
    ('{ factory = "a.b:c" }', '{ factory = "a:b", network = "mlp" }', "network, loss and options go with data"),
    (
        '{ factory = "a.b:c" }',
        '{ data = "digits", netwrk = "mlp" }',
        "a problem has no field 'netwrk'; did you mean 'network'?",
    ),
    ("grid = {}", "grid = { batch_sizes = [1] }", "grid has no recipe field 'batch_sizes'; fields are optimizer"),
    ("grid = {}", "grid = { seed = [] }", "grid.seed needs at least one value, each once; got []"),
    ("grid = {}", "grid = { seed = [1, 2, 1] }", "grid.seed needs at least one value, each once; got [1, 2, 1]"),
    ("grid = {}", "grid = { lr = [0.1] }", "lr is in recipe and in grid; leave it in one of them"),
    ("grid = {}", "grid = { seed = 3 }", "grid.seed is 3"),
    ("grid = {}", "grid = { seed = [0, -1] }", "seed is -1"),
    ("lr = 0.1", "lr = -0.1", "lr is -0.1"),
    ("lr = 0.1", "learning_rate = 0.1", "a recipe has no field 'learning_rate'; did you mean 'lr'?"),
    ("grid = {}", "grid = {}\n[measures.sharpness]\nradius = 0", "radius is 0"),
    ("grid = {}", "grid = {}\n[measures.sharpness]\nsearch = 'best'", "search is 'best'"),
    ("grid = {}", "grid = {}\n[measures.interpolation]\npoints = 1", "points is 1"),
    ("grid = {}", "grid = {}\n[measures.hessian]", "a measures has no field 'hessian'"),
    ("grid = {}", "grid = {}\n[measures.interpolation]\npoint = 3", "an interpolation has no field 'point'; did you"),
    ("grid = {}", "grid = {}\n[[claim]]\nmeasure = 'speed'\nwhere = {}", "measure is 'speed'"),
    ("grid = {}", "grid = {}\n[[claim]]\nmeasure = 'distance'", "a claim needs either where (with paper) or compare"),
    ("grid = {}", "grid = {}\n[[claim]]\nmeasure = 'distance'\nwhere = { seed = 1 }", "needs paper = { mean = ... }"),
    (
        "grid = {}",
        "grid = {}\n[[claim]]\nmeasure = 'distance'\ncompare = { seed = [0, 1] }",
        "a comparison needs expect, and one field with two values in compare",
    ),
    (
        "grid = {}",
        "grid = {}\n[[claim]]\nmeasure = 'distance'\nexpect = 'first > second'\ncompare = { seed = [0, 1], lr = [1, 2] }",
        "a comparison needs expect, and one field with two values in compare",
    ),
    (
        "grid = {}",
        "grid = {}\n[[claim]]\nmeasure = 'distance'\nexpect = 'first = second'\ncompare = { seed = [0, 1] }",
        "expect is 'first = second'",
    ),
    (
        "grid = {}",
        "grid = {}\n[[claim]]\nmeasure = 'distance'\nwhere = { seed = 1 }\npaper = { mean = 1, spread = -1 }",
        "spread is -1",
    ),
]


@pytest.mark.parametrize(("old", "new", "says"), REFUSED, ids=[new for _, new, _ in REFUSED])
def test_one_sentence_with_the_path(tmp_path, old, new, says):
    assert old in MINIMAL
    with pytest.raises(BadInput) as caught:
        read(tmp_path, MINIMAL.replace(old, new))
    text = str(caught.value)
    assert str(tmp_path / "study.toml") in text
    assert says in text
    assert "\n" not in text


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match=r"cannot read the study no/such\.toml: No such file"):
        read_study(Path("no/such.toml"))
    with pytest.raises(BadInput, match="Is a directory"):
        read_study(tmp_path)
    (tmp_path / "latin.toml").write_bytes('title = "ä"'.encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin\.toml is not valid TOML"):
        read_study(tmp_path / "latin.toml")
