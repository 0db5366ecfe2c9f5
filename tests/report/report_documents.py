"""Comparisons made up for the tests, from ordinary to degenerate; deterministic, and about the size of real ones."""

import math
import random

from gengap.core import estimate

NAMES = ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "sharpness", "distance", "seconds")
LINK = "https://arxiv.org/abs/1609.04836"


def history(rng, epochs, final, every=1):
    epoch = list(range(0, epochs + 1, every))
    fall = [math.exp(-5 * e / epochs) * rng.uniform(0.9, 1.1) for e in epoch]
    return {
        "epoch": epoch,
        "samples": [1000 * e for e in epoch],
        "steps": [32 * e for e in epoch],
        "lr": [0.05] * len(epoch),
        "train_loss": [final["train_loss"] + 2.3 * f for f in fall],
        "train_accuracy": [final["train_accuracy"] - 90 * f / max(fall) for f in fall],
        "test_loss": [final["test_loss"] + 2.2 * f for f in fall],
        "test_accuracy": [final["test_accuracy"] - 88 * f / max(fall) for f in fall],
        "seconds": [0.1 * e for e in epoch],
    }


def run(label, seed, final, sharpness, epochs, rng):
    found = {
        "percent": sharpness,
        "search": "robust",
        "radius": 1e-3,
        "evaluations": 60,
        "share_at_bound": 0.91,
        "agreement": 0.98,
        "batch_norm": "none",
        "samples": 1000,
        "bound": "lower",
    }
    return {
        "key": f"{rng.getrandbits(64):016x}",
        "seed": seed,
        "outcome": "finished",
        "reason": "",
        **final,
        "distance": rng.gauss(6.0 if "32" in label else 3.0, 0.2),
        "sharpness": found if sharpness is not None else None,
        "seconds": rng.uniform(1.1, 1.5),
        "history": history(rng, epochs, final),
    }


def arm(label, size, seeds, rng, *, accuracy, sharpness, epochs=60):
    runs = []
    for seed in range(seeds):
        final = {
            "test_accuracy": accuracy + rng.gauss(0, 0.35),
            "train_accuracy": 100.0,
            "test_loss": 0.11 + rng.gauss(0, 0.01),
            "train_loss": 10 ** rng.gauss(-3.3, 0.2),
        }
        runs.append(run(label, seed, final, sharpness * math.exp(rng.gauss(0, 0.5)), epochs, rng))
    recipe = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": size, "budget": f"{epochs} epochs"}
    found = {"label": label, "batch_size": size, "recipe": recipe, "steps": 1000 * epochs // size, "failures": []}
    return summarise(found | {"runs": runs})


def observed(one, name):
    value = one[name]["percent"] if name == "sharpness" and one[name] else one[name]
    return value if one["outcome"] == "finished" else None


def summarise(one):
    """Compute the estimates of an arm from its runs."""
    for name in NAMES:
        values = [observed(r, name) for r in one["runs"]]
        kept = [v for v in values if v is not None]
        one[name] = estimate.mean(kept).to_dict() if kept else None
    return one


def compared(document):
    """Compute the differences from the runs."""
    pairs = list(zip(document["small"]["runs"], document["large"]["runs"], strict=True))
    found = {}
    for name in NAMES[:-1]:
        both = [(observed(a, name), observed(b, name)) for a, b in pairs]
        both = [(a, b) for a, b in both if a is not None and b is not None]
        first, second = [a for a, _ in both], [b for _, b in both]
        if name in {"sharpness", "distance"}:
            ratio = estimate.paired_ratio(first, second) if both else None
            found[name] = {"ratio": ratio.to_dict() if ratio else None}
        else:
            gap = estimate.paired_difference(first, second).to_dict() if both else None
            found[name] = {"estimate": gap, "unit": "points" if "accuracy" in name else "nats"}
    return document | {"difference": found}


def path(seed, rng):
    alphas = [-1 + 0.125 * i for i in range(25)]
    bumps = [min(abs(a) * 0.5, abs(a - 1) * 4) for a in alphas]
    return {
        "seed": seed,
        "alphas": alphas,
        "train_loss": [4e-4 + b**2 * rng.uniform(0.9, 1.1) for b in bumps],
        "test_loss": [0.1 + b**2 for b in bumps],
        "train_accuracy": [100 - 22 * b for b in bumps],
        "test_accuracy": [98.5 - 22 * b for b in bumps],
        "batch_norm": "none",
        "seconds": 3.2,
    }


CLAIMS = [
    ("test accuracy: small > large", "test_accuracy", "agrees", "the paired difference excludes 0"),
    ("sharpness: small < large", "sharpness", "agrees", "60 times sharper, interval 12 to 300"),
    ("distance: small > large", "distance", "same direction", "twice as far, but the paper gives no number"),
    ("train accuracy: equal", "train_accuracy", "insensitive", "both are 100 % in every seed"),
    ("warm starts: gap closes", "warm_start", "not run", "needs 12 more runs"),
    ("test loss: small < large", "test_loss", "not resolvable", "5 seeds resolve 0.02, the claim is 0.004"),
    ("distance: large > small", "distance", "differs", "the opposite holds in 5 of 5 seeds"),
]


def typical(seeds=5, **changes):
    rng = random.Random(7)
    document = {
        "format": "gengap.comparison/1",
        "title": "Does a larger batch generalise worse? convnet on digits",
        "sentence": "Batch 1,000 tests 2.1 points worse than batch 32 (95 % interval 0.9 to 3.3, 5 paired seeds) "
        "and its minimum is 60 times sharper (12 to 300).",
        "claims": [
            {"text": text, "measure": measure, "verdict": verdict, "why": why, "source": "Keskar et al. 2017, table 2"}
            for text, measure, verdict, why in CLAIMS
        ],
        "unresolved": [
            "Whether the test loss differs: 5 seeds resolve 0.02 nats, the difference is 0.004 or less.",
            "Whether sharpness causes the gap: both follow from the batch size, and nothing else was varied.",
        ],
        "problem": {
            "data": "digits",
            "network": "convnet",
            "loss": "cross_entropy",
            "train_samples": 1000,
            "test_samples": 797,
            "parameters": 24058,
            "batch_norm": "none",
        },
        "small": arm("batch 32", 32, seeds, rng, accuracy=98.6, sharpness=5.0),
        "large": arm("batch 1,000", 1000, seeds, rng, accuracy=96.5, sharpness=300.0),
        "interpolation": [path(seed, rng) for seed in range(min(seeds, 3))],
        "costs": [
            {"what": "training, batch 32", "seconds": 12.3, "detail": "5 runs, 9,600 steps"},
            {"what": "sharpness", "seconds": 140.0, "detail": "10 searches, 600 evaluations"},
        ],
        "definitions": [
            {"name": "Sharpness", "text": "The largest relative climb of the loss in a small box.", "link": LINK},
            {"name": "Distance", "text": "Euclidean distance of the weights from where they started.", "link": LINK},
        ],
        "study": '[problem]\ndata = "digits"\nnetwork = "convnet"\n\n[small]\nbatch_size = 32\n',
        "command": "gengap compare --data digits --network convnet --small 32 --large 1000 --seeds 5",
        "reproduce": "gengap reproduce study.toml --out again",
        "environment": {"gengap": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "processor": "Some CPU", "cores": 2},
        "created": "2026-11-23T13:00:00Z",
    }
    return compared(document | changes)


def one_seed():
    return typical(seeds=1, unresolved=["One seed gives no interval: train more seeds."])


def diverged(kind="large"):
    document = typical()
    for one in document[kind]["runs"]:
        measured = dict.fromkeys((*NAMES[:4], "distance", "sharpness"))
        one |= {"outcome": "diverged", "reason": "the loss was inf at step 17; try a smaller lr", **measured}
        one["history"] |= {name: [None] * len(one["history"]["epoch"]) for name in ("train_loss", "test_loss")}
    summarise(document[kind])
    seeds = range(len(document[kind]["runs"]))
    document[kind]["failures"] = [f"seed {s}: diverged at step 17: the loss was inf; try a smaller lr" for s in seeds]
    sentence = "Nothing can be said: every run of batch 1,000 diverged."
    return compared(document | {"interpolation": [], "sentence": sentence})


def nothing_finished():
    both = diverged("small")
    document = diverged("large") | {"small": both["small"]}
    for role in ("small", "large"):
        for one in document[role]["runs"]:
            one["history"] = {name: [] for name in one["history"]}
    return compared(document)


def regression():
    """A problem without accuracy, whose test loss is near 10⁻⁷."""
    document = typical(interpolation=[])
    for role in ("small", "large"):
        for one in document[role]["runs"]:
            one |= {"test_accuracy": None, "train_accuracy": None, "test_loss": one["test_loss"] * 1e-6}
            one["history"] |= {name: [None] * 61 for name in ("test_accuracy", "train_accuracy")}
        summarise(document[role])
    return compared(document)


def flat():
    """Sharpness of 0 in one arm: no ratio, and nothing for a logarithmic axis."""
    document = typical()
    for one in document["small"]["runs"]:
        one["sharpness"]["percent"] = 0.0
    summarise(document["small"])
    return compared(document)


def gaps():
    """Values missing here and there."""
    document = typical()
    for line in document["interpolation"]:
        line["train_loss"][0] = line["test_accuracy"][3] = None
    document["large"]["runs"][1]["sharpness"] = None
    document["small"]["steps"] = None
    document["large"]["runs"][2]["history"]["test_loss"][5] = None
    summarise(document["large"])
    return compared(document)


def long_names():
    document = typical()
    name = "batch 65,536 with LARS, warm-up and ghost batch norm of 256"
    document["large"]["label"] = name
    document["problem"]["network"] = "a-network-with-a-name-that-does-not-end-" * 4
    document["title"] = f"Does a larger batch generalise worse? {document['problem']['network']} on digits"
    return document


HOSTILE = "<script>alert(1)</script>$x_{$ &amp; \"'"


def hostile():
    document = typical()
    document["problem"]["network"] = HOSTILE
    document["title"] = f"Does a larger batch generalise worse? {HOSTILE}"
    document["large"]["label"] = HOSTILE
    document["definitions"][0]["link"] = "javascript:alert(1)"
    document["environment"]["processor"] = HOSTILE
    return document


ALL = {
    "typical": typical,
    "one_seed": one_seed,
    "two_seeds": lambda: typical(seeds=2),
    "twenty_seeds": lambda: typical(seeds=20),
    "diverged": diverged,
    "nothing_finished": nothing_finished,
    "regression": regression,
    "flat": flat,
    "gaps": gaps,
    "long_names": long_names,
    "hostile": hostile,
    "no_claims": lambda: typical(claims=[], unresolved=[], costs=[], interpolation=[]),
}
