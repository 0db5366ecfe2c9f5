"""Measurements made up for the tests, from whole to degenerate; deterministic, and about the size of real ones."""

import copy
import math

from gengap.report.minimum.document import minimum_document

HOSTILE = "<script>alert(1)</script>$x_{$ &amp; \"'"


def estimate(value, stdev=0.1, n=16, interval=None):
    half = 2 * stdev / math.sqrt(n)
    ends = [value - half, value + half] if interval is None else interval
    return {"value": value, "stdev": stdev, "n": n, "interval": ends, "method": "Student t, 95 %"}


def box(radius, percent, agreement=0.98):
    found = {"radius": radius, "percent": percent, "agreement": agreement, "nonfinite": 0, "evaluations": 33}
    return found | {"starts": [{"name": "point"}, {"name": "corner"}]}


def ball(radius, percent):
    return box(radius, percent) | {"base": 0.02}


def curve():
    alphas = [-0.5 + i / 12 for i in range(25)]
    loss = [0.01 + min(a * a, 3 * (a - 1) ** 2) for a in alphas]
    return {
        "alphas": alphas,
        "losses": [loss, [x + 0.1 for x in loss]],
        "accuracies": [[100 - 20 * x for x in loss], [98 - 20 * x for x in loss]],
        "summaries": [{"barrier": 0.31}, {"barrier": 0.29}],
    }


def plane(side=9):
    at = [-1 + 2 * i / (side - 1) for i in range(side)]
    z = [[0.01 + 2 * x * x + 0.3 * y * y for x in at] for y in at]
    return {"grid": {"x": at, "y": at, "losses": [z], "accuracies": [None]}, "axes": {"scaling": "filter"}}


def density(n=120):
    grid = [-0.1 + 1.2 * i / (n - 1) for i in range(n)]
    height = [100 * math.exp(-((x / 0.02) ** 2)) + 1e-3 * math.exp(-(((x - 0.79) / 0.02) ** 2)) for x in grid]
    return {
        "grid": grid,
        "density": height,
        "low": [0.5 * y for y in height],
        "high": [1.5 * y for y in height],
        "width": 0.02,
        "near_zero": estimate(0.97, 0.01, 4),
        "negative": estimate(0.01, 0.002, 4),
        "squared_norm": estimate(3.1, 0.4, 4),
        "steep": estimate(3e-5, 1e-5, 4),
        "threshold": 0.1,
        "steps": 40,
        "starts": 4,
    }


def growth():
    steps = [0, *(2**i for i in range(12))]
    return {
        "steps": steps,
        "distances": [0.0, *(0.5 + 0.9 * math.log(t) + 0.5 for t in steps[1:])],
        "norms": [10.0] * 13,
        "angles": [None, *[20.0] * 12],
        "fitted": [1, 2048],
        "log_fit": {
            "slope": {"value": 0.9, "stderr": 0.02, "interval": [0.86, 0.94], "n": 12, "method": "t"},
            "intercept": {"value": 1.0, "stderr": 0.1, "interval": [0.8, 1.2], "n": 12, "method": "t"},
            "n": 12,
            "bootstrap_interval": [0.8, 1.0],
        },
        "laws": {"verdict": "log law", "reason": "AICc lower by 12"},
    }


def line():
    found = curve()
    return {"positions": found["alphas"], **found, "axes": {"scaling": "filter"}}


def prior(l2, value, *, stderr=None, at_minimum=True):
    found = {"value": value - 50, "stderr": stderr, "ratio_for_null": value}
    return {"l2": l2, "evidence": found, "at_minimum": at_minimum}


def compared(name, before, after, verdict):
    return {"name": name, "before": before, "after": after, "ratio": after / before, "bound": 0.0, "verdict": verdict}


RECORDS = {
    "train": {"loss": estimate(0.0021, 0.05, 1000), "accuracy": estimate(99.9, 3.1, 1000), "gradient_norm": 0.0123},
    "test": {"loss": estimate(0.081, 0.4, 1000), "accuracy": estimate(98.1, 13.6, 1000), "gradient_norm": None},
    "sharpness": {"records": [box(5e-4, 12.2), box(1e-3, 49.3)]},
    "average_sharpness": {
        "rise": estimate(0.011, 0.002),
        "base": 0.0021,
        "sigma": 0.01,
        "converged": True,
        "rel_error": 0.05,
    },
    "ball_sharpness": ball(0.05, 2.1),
    "adaptive_sharpness": ball(0.5, 8.4),
    "random_rise": {
        "rise": estimate(3e-4, 1e-5, 50),
        "base": 0.0021,
        "radius": 1e-3,
        "percent": {"0.0": 0.01, "0.5": 0.03, "1.0": 0.05},
    },
    "subspace_sharpness": {
        "percent": estimate(3.3, 0.4, 5),
        "draws": [{}] * 5,
        "dim": 100,
        "radius": 1e-3,
        "evaluations": 160,
    },
    "top_eigenvalues": {
        "values": [0.79, 0.41, 0.2],
        "errors": [1e-7, 1e-6, 3e-4],
        "products": 17,
        "converged": True,
        "rel_error": 1e-3,
        "max_stable_lr": {"value": 2.53, "low": 2.5299, "high": 2.5301, "momentum": 0.0},
    },
    "bottom_eigenvalues": {
        "values": [-0.012, -0.01],
        "errors": [1e-4, 1e-4],
        "products": 44,
        "converged": True,
        "rel_error": 0.01,
    },
    "trace": {"value": 8.9, "stderr": 0.17, "probes": 18, "method": "hutch++", "interval": [8.5, 9.3], "deflated": 10},
    "spectral_density": density(),
    "noise_scale": {
        "simple": estimate(1200.0, 900.0, 1000, [900.0, 1700.0]),
        "reason": "",
        "at_least": 900.0,
        "trace_covariance": estimate(0.18, 0.3, 1000),
        "squared_gradient_norm": estimate(1.5e-4, 1e-3, 1000),
        "method": "per sample",
    },
    "curvature_noise_scale": {
        "scale": estimate(310.0, 100.0, 1000),
        "reason": "",
        "trace": estimate(0.05, 0.1, 1000),
        "probes": 40,
    },
    "covariance_eigenvalues": {"values": [0.11, 0.02], "residuals": [1e-6, 1e-5], "method": "lanczos"},
    "distance": {"from_init": 12.3, "relative": 0.45, "norm": 30.1},
    "distance_curve": growth(),
    "path": curve(),
    "trajectory": {
        "coordinates": [[0.9, 0.1], [0.5, 0.4], [0.1, 0.2], [0.0, 0.0]],
        "off_plane": [0.1, 0.2, 0.1, 0.0],
        "shares": [0.8, 0.15, 0.05],
        "random_walk_shares": [0.6, 0.2, 0.1],
        "checkpoints": 4,
        "grid": plane()["grid"],
    },
    "slice_1d": line(),
    "slice_2d": plane(),
    "rescaling_check": {
        "rows": [compared("loss", 0.1, 0.1, "invariant"), compared("top eigenvalue", 2.0, 30.0, "moves")],
        "alpha": 4.0,
    },
    "log_evidence": {
        "rows": [prior(1.0, -310.0), prior(10.0, -290.0, stderr=2.5, at_minimum=False)],
        "method": "exact",
    },
}
GROUPS = {
    "loss": ("train", "test"),
    "hessian": ("top_eigenvalues", "bottom_eigenvalues", "trace", "spectral_density"),
    "noise": ("noise_scale", "curvature_noise_scale", "covariance_eigenvalues"),
    "distance": ("distance", "distance_curve"),
    "landscape": ("path", "trajectory", "slice_1d", "slice_2d"),
    "evidence": ("log_evidence",),
    "reparametrisation": ("rescaling_check",),
}
FACTS = {
    "checkpoint": "runs/small/params.safetensors",
    "second": "runs/large/params.safetensors",
    "data": "mnist",
    "network": "keskar-f1",
    "loss": "cross_entropy",
    "train_samples": 60_000,
    "test_samples": 10_000,
    "parameters": 1_462_794,
    "dtype": "float32",
    "has_batch_norm": True,
}
SETTINGS = {"groups": ["loss", "sharpness"], "batch_norm": "running", "radii": [5e-4, 1e-3], "budget": 60.0}


def group_of(name):
    return next((group for group, names in GROUPS.items() if name in names), "sharpness")


def taken(name, record, *, reason=""):
    return {
        "name": name,
        "group": group_of(name),
        "title": name.replace("_", " ").capitalize(),
        "state": "failed" if record is None else "done",
        "reason": reason,
        "settings": {"samples": 1000},
        "record": record,
        "text": "words",
        "conditions": {"batch_norm": "running", "dtype": "float32", "samples": 1000},
        "seconds": 12.3,
        "forecast": 10.0,
        "created": "2026-11-25T12:00:00Z",
    }


def document(records=None, *, failed=(), facts=FACTS, left_out=(), remark="", params=(), **more):
    found = copy.deepcopy(RECORDS if records is None else records)
    measures = [taken(name, record) for name, record in found.items()]
    measures += [taken(name, None, reason=why) for name, why in failed]
    rows = [{"name": m["name"], "title": m["title"], "seconds": 10.0, "detail": "about 20 gradients"} for m in measures]
    plan = {"samples": 1000, "measures": rows, "remark": remark}
    plan["left_out"] = [{"title": title, "why": why} for title, why in left_out]
    made = minimum_document(
        facts=facts,
        settings=SETTINGS | {"params": list(params)},
        measures=measures,
        plan=plan,
        environment={"gengap": "0.1.0", "processor": "Some CPU", "threads": 1},
        **{"command": "gengap measure", **more},
    )
    return made | {"created": "2026-11-25T12:00:00Z"}


def only(*names):
    return document({name: RECORDS[name] for name in names})


def gaps():
    records = copy.deepcopy(RECORDS)
    records["path"]["losses"][0][3] = records["path"]["accuracies"][1][5] = None
    records["slice_2d"]["grid"]["losses"][0][0] = [None] * 9
    records["slice_1d"]["losses"][1] = [None] * 25
    records["noise_scale"] |= {"simple": None, "reason": "the squared gradient norm is not told from zero"}
    records["noise_scale"]["trace_covariance"]["interval"] = None
    records["sharpness"]["records"][1] = box(1e-3, 0.0, None)
    records["top_eigenvalues"] |= {"max_stable_lr": None, "converged": False}
    return document(records)


def saddle():
    records = copy.deepcopy(RECORDS)
    records["bottom_eigenvalues"]["values"] = [-0.4, -0.1]
    records["train"] |= {"accuracy": estimate(71.0, 45.0, 1000), "gradient_norm": 2.0}
    records["sharpness"]["records"][0] = box(5e-4, 12.0, 0.2)
    return document(records)


def failures():
    failed = [("sharpness", "the loss is not finite at params"), ("trace", HOSTILE)]
    left = [("Spectral density", "it would take about 90 s, and 3 s of the budget are left")]
    return document({"train": RECORDS["train"]}, failed=failed, left_out=left, remark="500 of the samples are used")


def hostile():
    facts = FACTS | {"checkpoint": HOSTILE, "second": HOSTILE, "network": HOSTILE}
    return document(facts=facts, command=HOSTILE, left_out=[(HOSTILE, HOSTILE)])


ALL = {
    "whole": document,
    "gaps": gaps,
    "saddle": saddle,
    "failures": failures,
    "hostile": hostile,
    "nothing": lambda: document({}),
    "no_density": lambda: only("top_eigenvalues"),
    "only_loss": lambda: only("train", "test"),
    "only_slices": lambda: only("slice_2d"),
    "only_distance": lambda: only("distance"),
    "some_weights": lambda: document(
        {name: RECORDS[name] for name in ("train", "test")}, facts=FACTS | {"measured": 39}, params=["0.*", "fc.bias"]
    ),
    "interrupted": lambda: document(
        {"train": RECORDS["train"]}, interrupted="interrupted in 'Trace'; 1 of 2 are there"
    ),
    "hessian_and_loss": lambda: only("train", "test", "top_eigenvalues", "distance"),
    "no_batch_norm": lambda: document(facts=FACTS | {"has_batch_norm": False}),
}
