"""Oracles: hand-written JSON hashed by hashlib, pinned literals, and exact fractions for shares."""

import hashlib
import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from gengap.core.recipe import Recipe, digest

GOOD = {"lr": 0.1, "batch_size": 32, "budget": {"epochs": 2}}

DEFAULTS = {
    "optimizer": "sgd",
    "momentum": 0.0,
    "nesterov": False,
    "betas": [0.9, 0.999],
    "eps": None,
    "weight_decay": 0.0,
    "decay_norms": True,
    "trust": 0.001,
    "momentum_correction": False,
    "lr_rule": None,
    "batch_schedule": None,
    "regime_adaptation": None,
    "drop_last": False,
    "schedule": {"name": "constant"},
    "warmup": None,
    "clip_norm": None,
    "gradient_noise": None,
    "ghost_batch": None,
    "batch_norm": "all",
    "method": None,
    "augment": None,
    "adversarial": None,
    "stability": None,
    "label_smoothing": 0.0,
    "dropout": None,
    "micro_batch": None,
    "quirks": None,
    "dtype": "float32",
    "memory_format": "contiguous",
    "seed": 0,
}

# The keys are names of finished runs in people's ledgers: none of these literals may ever change.
PINNED = [
    (
        {"lr": 0.1, "batch_size": 32, "budget": {"epochs": 20}},
        '{"batch_size":32,"budget":{"epochs":20},"lr":0.1}',
        "dd007c18548708fd",
    ),
    (
        {"optimizer": "adam", "lr": 1e-3, "batch_size": "10%", "budget": "converged", "seed": 4},
        '{"batch_size":"10%","budget":{"converged":{}},"lr":0.001,"optimizer":"adam","seed":4}',
        "4235d9c18ceaf889",
    ),
    (
        {
            "lr": 1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "batch_size": 1000,
            "micro_batch": 250,
            "schedule": {"name": "step", "milestones": [10, 15]},
            "warmup": {"epochs": 5},
            "budget": {"steps": 400},
            "dtype": "bf16",
        },
        '{"batch_size":1000,"budget":{"steps":400},"dtype":"bf16","lr":1.0,"micro_batch":250,"momentum":0.9,'
        '"nesterov":true,"schedule":{"milestones":[10.0,15.0],"name":"step"},"warmup":{"epochs":5.0},'
        '"weight_decay":0.0005}',
        "21ae2df4cea89779",
    ),
]

CHANGES = [
    {"optimizer": "adam"},
    {"optimizer": "adagrad"},
    {"optimizer": "adam", "betas": (0.8, 0.999)},
    {"optimizer": "adam", "betas": (0.9, 0.99)},
    {"optimizer": "adam", "eps": 1e-8},
    {"optimizer": "adam", "eps": 1e-6},
    *({"optimizer": name} for name in ("adamw", "rmsprop", "lars", "lamb", "lbfgs", "full-batch-gd", "kfac")),
    {"optimizer": "rmsprop-warmup"},
    {"optimizer": "adaqn"},
    {"optimizer": "lars", "trust": 0.01},
    {"optimizer": "lars", "momentum_correction": True},
    {"lr": 0.2},
    {"lr_rule": {"name": "sqrt", "reference_batch": 8}},
    {"lr_rule": {"name": "linear", "reference_batch": 8}},
    {"lr_rule": {"name": "linear", "reference_batch": 8, "reference_momentum": 0.5}},
    {"batch_schedule": {"name": "step", "milestones": [1]}},
    {"batch_schedule": {"name": "step", "milestones": [1], "factor": 2}},
    {"batch_schedule": {"name": "step", "milestones": [1], "limit": 64}},
    {"batch_schedule": {"name": "switch", "milestones": [1], "sizes": [64]}},
    {"batch_schedule": {"name": "geometric", "growth": 1.1}},
    {"batch_schedule": {"name": "dynamic"}},
    {"batch_schedule": {"name": "dynamic", "theta": 0.7}},
    {"regime_adaptation": 8},
    {"clip_norm": 5.0},
    {"gradient_noise": {"name": "multiplicative", "reference_batch": 8}},
    {"gradient_noise": {"name": "multiplicative", "sigma": 0.5}},
    {"gradient_noise": {"name": "isotropic", "temperature": 1e-6}},
    {"ghost_batch": 8},
    {"batch_norm": "rank"},
    {"batch_norm": 2},
    *({"method": name} for name in ("sam", "asam", "conservative", "entropy-sgd", "svrg", "elastic-averaging")),
    {"method": "post-local-sgd"},
    {"method": {"name": "sam", "rho": 0.1}},
    {"augment": "keskar"},
    {"augment": "crop-flip"},
    {"adversarial": {"epsilon": 0.1}},
    {"stability": {"sigma": 0.1}},
    {"label_smoothing": 0.1},
    {"dropout": 0.5},
    {"decay_norms": False},
    {"quirks": "bigbatch"},
    {"schedule": "polynomial"},
    {"schedule": "slow-start"},
    {"schedule": {"name": "piecewise", "milestones": [1], "factors": [0.5]}},
    {"warmup": {"epochs": 1, "start": "reference"}, "lr_rule": {"name": "sqrt", "reference_batch": 16}},
    {"micro_batch": "auto"},
    {"momentum": 0.5},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 1e-4},
    {"batch_size": 33},
    {"batch_size": "10%"},
    {"drop_last": True},
    {"schedule": "cosine"},
    {"schedule": {"name": "cosine", "final": 0.1}},
    {"schedule": "smith2020"},
    {"schedule": {"name": "step", "milestones": [1]}},
    {"schedule": {"name": "step", "milestones": [1, 2]}},
    {"schedule": {"name": "step", "milestones": [1], "factor": 0.5}},
    {"warmup": {"epochs": 1}},
    {"warmup": {"epochs": 2}},
    {"warmup": {"epochs": 1, "start": 0.5}},
    {"warmup": {"epochs": 1, "shape": "constant"}},
    {"budget": {"epochs": 3}},
    {"budget": {"steps": 2}},
    {"budget": "converged"},
    {"budget": {"converged": {"patience": 5}}},
    {"budget": {"converged": {"tolerance": 0.1}}},
    {"budget": {"converged": {"max_epochs": 5}}},
    {"micro_batch": 8},
    {"dtype": "float64"},
    {"dtype": "bf16"},
    {"memory_format": "channels_last"},
    {"seed": 1},
    {"seed": 2**63 - 1},
]


def floats(low, high):
    return st.floats(low, high, allow_nan=False)


schedules = st.one_of(
    st.just("constant"),
    st.builds(
        lambda milestones, factor: {"name": "step", "milestones": sorted(milestones), "factor": factor},
        st.sets(floats(0.1, 100), min_size=1, max_size=4),
        floats(1e-3, 2),
    ),
)
ending = st.one_of(
    schedules, st.just("smith2020"), st.builds(lambda x: {"name": "cosine", "final": x}, floats(0.0, 1.0))
)
converged = st.fixed_dictionaries({
    "patience": st.integers(1, 20),
    "tolerance": floats(0.0, 0.9),
    "max_epochs": st.integers(1, 500),
})
lengths = st.one_of(
    st.fixed_dictionaries({"epochs": st.integers(1, 10**6)}), st.fixed_dictionaries({"steps": st.integers(1, 10**9)})
)
optimizers = st.one_of(
    st.fixed_dictionaries({"momentum": floats(0.01, 0.999), "nesterov": st.booleans()}),
    st.fixed_dictionaries({"optimizer": st.just("adam"), "betas": st.tuples(floats(0.01, 0.999), floats(0.01, 0.999))}),
    st.fixed_dictionaries({"optimizer": st.just("adagrad"), "eps": floats(1e-12, 1)}),
)
rest = st.fixed_dictionaries(
    {"lr": floats(1e-9, 1e3)},
    optional={
        "weight_decay": floats(1e-9, 1),
        "drop_last": st.booleans(),
        "warmup": st.fixed_dictionaries({"epochs": floats(0.1, 50)}, optional={"start": floats(0.01, 1)}),
        "dtype": st.sampled_from(["float32", "float64", "bf16"]),
        "memory_format": st.sampled_from(["contiguous", "channels_last"]),
        "seed": st.integers(0, 2**63 - 1),
    },
)
batches = st.one_of(
    st.builds(lambda size, parts: {"batch_size": size * parts, "micro_batch": size}, st.integers(1, 99), st.just(3)),
    st.builds(lambda percent: {"batch_size": f"{percent}%"}, st.integers(1, 100)),
)
learning = st.one_of(
    st.fixed_dictionaries({"schedule": ending, "budget": lengths}),
    st.fixed_dictionaries({"schedule": schedules, "budget": st.builds(lambda c: {"converged": c}, converged)}),
)
valid = st.builds(lambda a, b, c, d: {**a, **b, **c, **d}, optimizers, rest, batches, learning)


@settings(max_examples=60, deadline=None)
@given(fields=valid, data=st.data())
def test_json_brings_back_the_recipe_and_its_key(fields, data):
    recipe = Recipe(**fields)
    again = Recipe.from_json(recipe.to_json())
    assert (again, again.key, hash(again)) == (recipe, recipe.key, hash(recipe))
    assert "\n" not in recipe.to_json()
    order = data.draw(st.permutations(list(fields)))
    assert Recipe(**{name: fields[name] for name in order}).key == recipe.key


@settings(max_examples=60, deadline=None)
@given(first=valid, second=valid)
def test_keys_are_equal_exactly_for_equal_recipes(first, second):
    a, b = Recipe(**first), Recipe(**second)
    assert (a.key == b.key) == (a == b)


@pytest.mark.parametrize(("fields", "json", "key"), PINNED, ids=["plain", "adam", "many"])
def test_key_is_the_hash_of_what_is_not_default(fields, json, key):
    recipe = Recipe(**fields)
    assert recipe.key == key
    assert hashlib.sha256(json.encode()).hexdigest()[:16] == key
    assert Recipe(**{**DEFAULTS, **fields}).key == key


def test_defaults_are_pinned():
    """A default that changes would give old keys to new recipes."""
    told = Recipe(**GOOD).model_dump(mode="json")
    assert {name: told[name] for name in told if name not in GOOD} == DEFAULTS
    until = Recipe(**{**GOOD, "budget": "converged"}).model_dump(mode="json")["budget"]
    assert until == {"epochs": None, "steps": None, "converged": {"patience": 10, "tolerance": 1e-3, "max_epochs": 100}}
    step = Recipe(**{**GOOD, "schedule": {"name": "step", "milestones": [1]}}).model_dump(mode="json")["schedule"]
    assert step == {"name": "step", "milestones": [1.0], "factor": 0.1}
    assert Recipe(**GOOD, schedule="cosine").model_dump(mode="json")["schedule"] == {"name": "cosine", "final": 0.0}
    warm = Recipe(**GOOD, warmup={"epochs": 1}).model_dump(mode="json")["warmup"]
    assert warm == {"epochs": 1.0, "start": 0.0, "shape": "linear"}


def test_every_field_changes_the_key():
    recipes = [Recipe(**GOOD), *(Recipe(**{**GOOD, **change}) for change in CHANGES)]
    assert {name for change in CHANGES for name in change} == set(Recipe.model_fields)
    assert len({recipe.key for recipe in recipes}) == len(recipes)


def test_number_and_its_float_are_one_recipe():
    assert Recipe(**{**GOOD, "lr": 1}).key == Recipe(**{**GOOD, "lr": 1.0}).key


def test_a_share_is_rounded_up():
    for samples in (1, 7, 200, 797, 1000, 60_000, 721_329):
        for hundredths in range(1, 10_001, 13):
            percent = f"{hundredths // 100}.{hundredths % 100:02d}"
            exact = math.ceil(Fraction(percent) * samples / 100)
            found = Recipe(lr=1, batch_size=f"{percent}%", budget={"epochs": 1}).resolved(samples).batch_size
            assert found == exact, (samples, percent)


def test_published_large_batches():
    tenth = Recipe(lr=1, batch_size="10%", budget={"epochs": 1})
    assert [tenth.resolved(n).batch_size for n in (60_000, 50_000, 721_329)] == [6_000, 5_000, 72_133]
    assert Recipe(lr=1, batch_size=" 100 % ", budget={"epochs": 1}).resolved(797).batch_size == 797


def test_resolved_changes_nothing_else():
    recipe = Recipe(lr=0.3, batch_size="50%", budget={"epochs": 3}, seed=9)
    assert recipe.resolved(10) == recipe.changed(batch_size=5)
    assert recipe.resolved(10).resolved(10) == recipe.resolved(10)
    assert recipe.batch_size == "50%"


def test_a_recipe_is_frozen():
    recipe = Recipe(**GOOD, schedule={"name": "step", "milestones": [1]})
    with pytest.raises(ValidationError, match="frozen"):
        recipe.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        recipe.schedule.factor = 1.0
    assert recipe.changed(lr=1.0).lr == 1.0
    assert recipe.lr == 0.1


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ({"epochs": 20}, "20 epochs"),
        ({"steps": 12_000}, "12,000 steps"),
        ("converged", "until converged, at most 100 epochs"),
    ],
)
def test_a_budget_in_words(budget, text):
    assert str(Recipe(**{**GOOD, "budget": budget}).budget) == text


def test_digest_knows_no_order_of_names():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1}) != digest({"a": 1, "b": [2, 1]})
    texts = [digest(i) for i in range(500)]
    assert len(set(texts)) == 500
    assert all(len(text) == 16 and set(text) <= set("0123456789abcdef") for text in texts)
    assert all(a != b for a, b in pairwise(texts))
