"""Oracle: the sentence a user should read, written here by hand: its field, its value and what to do."""

import math

import pytest

from gengap.core.errors import BadInput
from gengap.core.recipe import Budget, Recipe

GOOD = {"lr": 0.1, "batch_size": 32, "budget": {"epochs": 2}}

REFUSED = [
    # unknown and missing fields
    ({"learning_rate": 0.1}, ["no field 'learning_rate'", "did you mean 'lr'?"]),
    ({"batch": 8}, ["no field 'batch'", "did you mean 'batch_size'?"]),
    ({"wd": 0.1}, ["no field 'wd'", "did you mean 'weight_decay'?"]),
    ({"epochs": 3}, ["no field 'epochs'", "did you mean 'budget'?"]),
    ({"moment": 0.9}, ["no field 'moment'", "did you mean 'momentum'?"]),
    ({"zzz": 1}, ["no field 'zzz'", "its fields are optimizer, lr, momentum", "seed"]),
    ({"lr": None}, ["lr is None", "number"]),
    # numbers out of range
    ({"lr": -1.5}, ["lr is -1.5", "greater than 0"]),
    ({"lr": 0}, ["lr is 0", "greater than 0"]),
    ({"lr": math.nan}, ["lr is nan", "finite"]),
    ({"lr": math.inf}, ["lr is inf", "finite"]),
    ({"lr": "fast"}, ["lr is 'fast'", "number"]),
    ({"momentum": 1.0}, ["momentum is 1.0", "less than 1"]),
    ({"momentum": -0.5}, ["momentum is -0.5", "greater than or equal to 0"]),
    ({"weight_decay": -1}, ["weight_decay is -1", "greater than or equal to 0"]),
    ({"eps": 0}, ["eps is 0", "greater than 0"]),
    ({"seed": -1}, ["seed is -1"]),
    ({"seed": 2**63}, ["seed is 9223372036854775808", "less than"]),
    ({"micro_batch": 0}, ["micro_batch is 0"]),
    # words
    ({"optimizer": "adan"}, ["optimizer is 'adan'", "'sgd', 'adam', 'adamw'"]),
    ({"dtype": "fp16"}, ["dtype is 'fp16'", "'bf16'"]),
    ({"memory_format": "nhwc"}, ["memory_format is 'nhwc'", "'channels_last'"]),
    ({"drop_last": "maybe"}, ["drop_last is 'maybe'"]),
    # the batch
    ({"batch_size": 0}, ["batch_size is 0", "greater than or equal to 1"]),
    ({"batch_size": 1.5}, ["batch_size is 1.5", "integer"]),
    ({"batch_size": None}, ["batch_size is None"]),
    ({"batch_size": "200%"}, ["batch_size is '200%'", "such as '10%'"]),
    ({"batch_size": "0%"}, ["batch_size is '0%'"]),
    ({"batch_size": "-5%"}, ["batch_size is '-5%'"]),
    ({"batch_size": "32"}, ["batch_size is '32'", "whole number"]),
    ({"batch_size": "a\nb"}, ["batch_size is 'a\\nb'"]),
    ({"micro_batch": 64}, ["micro_batch 64", "batch_size 32"]),
    # the budget
    ({"budget": {"epochs": 1, "steps": 2}}, ["budget is {'epochs': 1, 'steps': 2}", "exactly one of"]),
    ({"budget": {}}, ["budget is {}", "exactly one of epochs, steps and converged"]),
    ({"budget": {"epochs": 0}}, ["epochs is 0"]),
    ({"budget": {"steps": -7}}, ["steps is -7"]),
    ({"budget": {"epoch": 3}}, ["no field 'epoch'", "did you mean 'epochs'?"]),
    ({"budget": "convergd"}, ["budget is 'convergd'"]),
    ({"budget": {"converged": {"patience": 0}}}, ["patience is 0"]),
    ({"budget": {"converged": {"tolerance": 1}}}, ["tolerance is 1"]),
    ({"budget": {"converged": {"max_epochs": 0}}}, ["max_epochs is 0"]),
    # schedules and warm-up
    ({"schedule": "cosin"}, ["'cosin'", "'cosine'", "'step'"]),
    ({"schedule": 3}, ["schedule is 3"]),
    ({"schedule": {"factor": 0.5}}, ["schedule is {'factor': 0.5}", "name"]),
    ({"schedule": {"name": "step"}}, ["needs the field 'milestones'"]),
    ({"schedule": {"name": "step", "milestones": []}}, ["milestones is []"]),
    ({"schedule": {"name": "step", "milestones": [3, 2]}}, ["[3, 2]", "must ascend"]),
    ({"schedule": {"name": "step", "milestones": [2, 2]}}, ["[2, 2]", "must ascend"]),
    ({"schedule": {"name": "step", "milestones": [0]}}, ["milestones.0 is 0"]),
    ({"schedule": {"name": "step", "milestones": [1], "factor": 0}}, ["factor is 0"]),
    ({"schedule": {"name": "step", "milestones": [1], "gamma": 0.1}}, ["no field 'gamma'", "factor"]),
    ({"schedule": {"name": "cosine", "final": 2}}, ["final is 2"]),
    ({"schedule": "cosine", "budget": "converged"}, ["'cosine'", "epochs or steps"]),
    ({"schedule": "smith2020", "budget": "converged"}, ["'smith2020'", "epochs or steps"]),
    ({"warmup": "5 epochs"}, ["warmup is '5 epochs'"]),
    ({"warmup": {"epochs": 0}}, ["epochs is 0"]),
    ({"warmup": {"epochs": 1, "start": 1.5}}, ["start is 1.5"]),
    ({"warmup": {"epochs": 1, "shape": "round"}}, ["shape is 'round'", "'linear' or 'constant'"]),
    # fields that do not go together
    ({"optimizer": "adam", "momentum": 0.9}, ["momentum", "not to adam", "leave them out"]),
    ({"optimizer": "adagrad", "nesterov": True}, ["nesterov", "not to adagrad"]),
    ({"nesterov": True}, ["nesterov needs a momentum"]),
    ({"betas": (0.8, 0.9)}, ["betas belong to adam, adamw and lamb, not to sgd"]),
    ({"optimizer": "rmsprop", "momentum": 0.5, "nesterov": True}, ["nesterov belongs to", "not to rmsprop"]),
    ({"momentum_correction": True}, ["momentum_correction", "that of sgd has not"]),
    (
        {"method": "sam", "gradient_noise": {"name": "isotropic", "temperature": 1e-6}},
        ["isotropic noise", "sam takes several"],
    ),
    ({"optimizer": "lbfgs", "method": "sam"}, ["lbfgs", "sam", "give one of them"]),
    ({"optimizer": "full-batch-gd", "clip_norm": 1.0}, ["full-batch-gd", "clip_norm"]),
    ({"optimizer": "kfac", "method": "sam"}, ["sam", "kfac"]),
    ({"trust": 0.1}, ["trust belongs to lars, not to sgd"]),
    ({"optimizer": "adam", "quirks": "bigbatch"}, ["bigbatch", "not of adam"]),
    ({"warmup": {"epochs": 1, "start": "reference"}}, ["needs an lr_rule"]),
    ({"regime_adaptation": 8, "budget": {"steps": 5}}, ["regime_adaptation", "budget of epochs"]),
    (
        {"regime_adaptation": 8, "batch_schedule": {"name": "geometric", "growth": 2}},
        ["regime_adaptation and batch_schedule", "give one of them"],
    ),
    ({"gradient_noise": {"name": "multiplicative"}}, ["sigma or the reference_batch"]),
    (
        {"gradient_noise": {"name": "multiplicative", "sigma": 1, "reference_batch": 2}},
        ["sigma or the reference_batch"],
    ),
    ({"batch_schedule": {"name": "switch", "milestones": [1, 2], "sizes": [3]}}, ["2 milestones and 1 sizes"]),
    ({"schedule": {"name": "piecewise", "milestones": [1, 2], "factors": [0.5]}}, ["2 milestones and 1 factors"]),
    ({"schedule": "polynomial", "budget": "converged"}, ["'polynomial'", "epochs or steps"]),
    ({"method": "sam", "quirks": "bigbatch"}, ["quirks", "sam"]),
    ({"quirks": "bigbatch", "micro_batch": 8}, ["quirks", "micro_batch"]),
    ({"method": "svrg", "clip_norm": 1.0}, ["svrg", "clip_norm"]),
    ({"method": "svrg", "gradient_noise": {"name": "multiplicative", "sigma": 1}}, ["svrg", "gradient_noise"]),
    ({"method": "post-local-sgd", "clip_norm": 1.0}, ["clip_norm", "each worker"]),
    ({"optimizer": "kfac", "dtype": "bf16"}, ["kfac", "float32"]),
    ({"eps": 1e-3}, ["eps belongs to", "not to sgd"]),
    ({"ghost_batch": 4, "micro_batch": 6}, ["micro_batch 6", "multiple of ghost_batch"]),
    ({"adversarial": {"epsilon": 1}, "stability": {"sigma": 1}}, ["adversarial and stability"]),
    ({"method": "sma"}, ["'sma'", "'sam'"]),
    ({"method": {"name": "sam", "rho": 0}}, ["rho is 0"]),
    ({"ghost_batch": 1}, ["ghost_batch is 1"]),
    ({"label_smoothing": 1.0}, ["label_smoothing is 1.0"]),
    ({"micro_batch": "all"}, ["micro_batch is 'all'"]),
    ({"lr_rule": {"name": "cube", "reference_batch": 8}}, ["'cube'", "'linear' or 'sqrt'"]),
    ({"optimizer": "adam", "betas": (0.9, 1.0)}, ["betas.1 is 1.0"]),
    ({"optimizer": "adam", "betas": (0.9,)}, ["betas"]),
]


@pytest.mark.parametrize(("fields", "parts"), REFUSED, ids=[str(fields) for fields, _ in REFUSED])
def test_one_sentence_names_field_and_value(fields, parts):
    with pytest.raises(BadInput) as caught:
        Recipe(**{**GOOD, **fields})
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    for part in parts:
        assert part in text


@pytest.mark.parametrize("field", GOOD)
def test_what_has_no_default_must_be_given(field):
    with pytest.raises(BadInput, match=f"^a recipe needs the field '{field}'$"):
        Recipe(**{name: value for name, value in GOOD.items() if name != field})


def test_a_field_of_another_name_is_not_called_missing():
    with pytest.raises(BadInput, match=r"^a recipe has no field 'learning_rate'; did you mean 'lr'\?$"):
        Recipe(learning_rate=0.1, batch_size=32, budget={"epochs": 2})


def test_a_hint_is_a_field_of_the_thing_itself():
    with pytest.raises(BadInput, match="its fields are epochs, steps, converged"):
        Budget(batch=3)


@pytest.mark.parametrize("text", ["{", "[1]", "3", '"lr"', "", '{"lr": NaN, "batch_size": 1, "budget": "converged"}'])
def test_json_that_is_no_recipe(text):
    with pytest.raises(BadInput) as caught:
        Recipe.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_training_set():
    with pytest.raises(BadInput, match=r"^batch_size is 2,000, but there are only 1,000 training samples"):
        Recipe(lr=1, batch_size=2000, budget={"epochs": 1}).resolved(1000)


def test_a_share_smaller_than_its_micro_batch():
    recipe = Recipe(lr=1, batch_size="10%", micro_batch=50, budget={"epochs": 1})
    assert recipe.resolved(500).batch_size == 50
    with pytest.raises(BadInput, match="micro_batch 50 is larger than batch_size 10"):
        recipe.resolved(100)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1.0},
        {"seed": True},
        {"budget": {"epochs": True}},
        {"budget": {"steps": 10.0}},
        {"ghost_batch": 4.0},
        {"micro_batch": True},
        {"method": {"name": "svrg", "epochs": True}},
    ],
)
def test_whole_numbers_are_whole_numbers(fields: dict) -> None:
    with pytest.raises(BadInput, match="integer"):
        Recipe(**{"lr": 0.1, "batch_size": 8, "budget": {"epochs": 2}} | fields)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"batch_schedule": "dynamic"}, {"batch_schedule": {"name": "dynamic"}}),
        ({"warmup": 5}, {"warmup": {"epochs": 5}}),
        ({"method": "sam"}, {"method": {"name": "sam"}}),
    ],
)
def test_short_forms_are_the_long_ones(short: dict, long: dict) -> None:
    base = {"lr": 0.1, "batch_size": 8, "budget": {"epochs": 2}}
    assert Recipe(**base, **short) == Recipe(**base, **long)


def test_what_a_short_form_lacks_is_said_in_words() -> None:
    with pytest.raises(BadInput, match="an lr rule needs the field 'reference_batch'"):
        Recipe(lr=0.1, batch_size=8, budget={"epochs": 2}, lr_rule="linear")
