"""From a store and a study to the one document that the page, the terminal and --json show."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean, paired_difference, paired_ratio
from gengap.report.sentence import answer, unresolved
from gengap.store.rows import RunRow
from gengap.store.store import Store
from gengap.studies.study import Study
from gengap.studies.verdict import Cell, judge

FORMAT = "gengap.comparison/1"
NUMBERS = ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "sharpness", "distance", "seconds")
UNITS = {"test_accuracy": "points", "train_accuracy": "points", "test_loss": "nats", "train_loss": "nats"}
KESKAR = "https://arxiv.org/abs/1609.04836"
Json = dict[str, Any]


def comparison_document(store: Store, study: Study, keys: Sequence[str], *, command: str = "") -> Json:
    """Assemble everything that is shown of a comparison.

    Args:
        store: holds the runs and their measures.
        study: with two batch sizes.
        keys: of the study's runs in the store; those that are not there yet are left out.
        command: the command line that made it, for the report.

    Returns:
        A JSON value; its form is described in docs/reference/json.md.

    Raises:
        BadInput: the study has not two batch sizes, or none of its runs is in the store.
    """
    variants = store.recall("variants") or {}
    every = [row for key in keys if (row := store.run(key)) is not None]
    rows = [row for row in every if row.key not in variants]
    if not rows:
        raise BadInput(f"{store.folder} holds no run of this study; run it with gengap reproduce")
    runs = [run_entry(store, study, row) for row in rows]
    changed = [(variants[row.key], run_entry(store, study, row)) for row in every if row.key in variants]
    sizes = sorted({run["batch_size"] for run in runs} | set(resolved_sizes(study)))
    if len(sizes) != 2:
        raise BadInput(f"a comparison needs two batch sizes; this study has {sizes}")
    facts = store.problem(rows[0].problem)
    small, large = [arm(size, [run for run in runs if run["batch_size"] == size]) for size in sizes]
    verdicts = [judge(claim, cells(rows, runs)) for claim in study.claim]
    difference = differences(small, large)
    words: dict[str, str] = {v.claim.measure: v.word for v in verdicts}
    words.setdefault("test_loss", "not resolvable")
    listed = [v.to_dict() for v in verdicts]
    sentence = answer(small, large, difference, words)
    return {
        "format": FORMAT,
        "title": study.title,
        "sentence": sentence,
        "verdict": {"sentence": sentence, **{v.claim.measure: v.word for v in verdicts}},
        "claims": listed,
        "unresolved": unresolved(small, large, difference, listed),
        "problem": problem_entry(facts, study),
        "small": small,
        "large": large,
        "difference": difference,
        "remedies": (remedies := remedy_entries(study, changed, small, large)),
        "interpolation": paths(store, study, runs),
        "costs": costs(small, large, *remedies),
        "definitions": definitions(study, facts),
        "study": study.to_toml(),
        "command": command,
        "reproduce": again(study, rows[-1].environment),
        "environment": rows[-1].environment,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def again(study: Study, environment: Mapping[str, Any]) -> str:
    """Give the command that makes the same numbers; threads decide the last bits."""
    if study.problem.name:
        return f"# the problem {study.problem.name!r} lives in a Python program: call gengap.compare there again"
    return f"gengap reproduce study.toml --out again --threads {environment.get('threads', 1)}"


def resolved_sizes(study: Study) -> list[int]:
    """Give the batch sizes of the grid that are numbers."""
    return [size for size in study.grid.get("batch_size", []) if isinstance(size, int)]


def run_entry(store: Store, study: Study, row: RunRow) -> Json:
    """Describe one run."""
    last = row.history[-1] if row.history and row.outcome == "finished" else {}
    spec = study.measures.sharpness
    sharpness = store.measure(row.key, "sharpness", spec.settings) if spec else None
    distance = store.measure(row.key, "distance", {})
    scoring = study.measures.score if store.problem(row.problem).get("has_batch_norm") else None
    score = (store.measure(row.key, "score", scoring.settings) or {}) if scoring else last
    return {
        "key": row.key,
        "seed": row.recipe["seed"],
        "batch_size": row.recipe["batch_size"],
        "outcome": row.outcome,
        "reason": row.reason,
        "step": row.step,
        **{name: score.get(name) for name in UNITS},
        "running": {name: last.get(name) for name in UNITS} if scoring else None,
        "distance": distance["from_init"] if distance else None,
        "distance_record": distance,
        "sharpness": sharpness,
        "seconds": row.cost.get("seconds"),
        "cost": row.cost,
        "recipe": row.recipe,
        "history": columns(row.history),
    }


def columns(history: Sequence[Mapping[str, Any]]) -> Json:
    """Turn points in time into columns."""
    names = ("epoch", "samples", "step", "lr", "seconds", "batch_loss", *UNITS)
    table = {name: [point.get(name) for point in history] for name in names}
    table["steps"] = table.pop("step")
    return table


def arm(size: int, runs: Sequence[Json]) -> Json:
    """Summarise the runs with one batch size."""
    finished = [run for run in runs if run["outcome"] == "finished"]
    recipe = {k: v for k, v in (runs[0]["recipe"] if runs else {}).items() if k != "seed"}
    failures = [
        f"seed {run['seed']}: {run['outcome']} at step {run['step']:,}: {run['reason']}"
        for run in runs
        if run["outcome"] != "finished"
    ]
    steps = {run["step"] for run in finished}
    return {
        "label": f"batch {size:,}",
        "batch_size": size,
        "recipe": recipe,
        "steps": steps.pop() if len(steps) == 1 else None,
        "failures": failures,
        **{name: estimate([scalar(run, name) for run in finished]) for name in NUMBERS},
        "runs": [{k: v for k, v in run.items() if k not in {"recipe", "batch_size"}} for run in runs],
    }


def scalar(run: Mapping[str, Any], name: str) -> float | None:
    """Give one number of a run."""
    value = run[name]
    found: float | None = value["percent"] if isinstance(value, dict) else value
    return found


def estimate(values: Sequence[float | None]) -> Json | None:
    """Estimate the mean of the numbers that are there."""
    there = [value for value in values if value is not None]
    return mean(there).to_dict() if there else None


def differences(small: Json, large: Json) -> Json:
    """Estimate paired differences large - small, and ratios large / small."""
    found: Json = {}
    for name, unit in UNITS.items():
        made = over_pairs(small, large, name, paired_difference)
        found[name] = {"estimate": made, "unit": unit} if made else None
    for name in ("sharpness", "distance"):
        found[name] = {"ratio": over_pairs(small, large, name, paired_ratio)}
    return found


def over_pairs(
    small: Json,
    large: Json,
    name: str,
    combine: Callable[[list[float], list[float]], Estimate | None],
) -> Json | None:
    """Combine the values of seeds that finished with both batch sizes; None where there is none."""
    ours = [
        {run["seed"]: scalar(run, name) for run in arm["runs"] if run["outcome"] == "finished"}
        for arm in (small, large)
    ]
    both = [seed for seed in ours[0] if ours[0][seed] is not None and ours[1].get(seed) is not None]
    found = combine([ours[0][seed] for seed in both], [ours[1][seed] for seed in both]) if both else None  # type: ignore[misc]
    return found.to_dict() if found else None


def cells(rows: Sequence[RunRow], runs: Sequence[Json]) -> list[Cell]:
    """Give finished runs as claims see them."""
    return [
        Cell(row.recipe, {name: scalar(run, name) for name in NUMBERS})
        for row, run in zip(rows, runs, strict=True)
        if row.outcome == "finished"
    ]


def problem_entry(facts: Mapping[str, Any], study: Study) -> Json:
    """Describe what was learnt, and which statistics the measures used."""
    spec = study.measures.score
    mode = (spec.batch_norm if spec else "running") if facts.get("has_batch_norm") else "none"
    names = ("data", "network", "loss", "train_samples", "test_samples", "parameters")
    return {**{name: facts.get(name) for name in names}, "batch_norm": mode}


def paths(store: Store, study: Study, runs: Sequence[Json]) -> list[Json]:
    """Give the measured paths between pairs of runs."""
    spec = study.measures.interpolation
    if spec is None:
        return []
    found = []
    for a in runs:
        for b in runs:
            if a["seed"] != b["seed"] or a["batch_size"] >= b["batch_size"]:
                continue
            record = store.measure(f"{a['key']}+{b['key']}", "interpolation", spec.settings)
            if record:
                found.append(path_entry(a["seed"], record))
    return found


def path_entry(seed: int, record: Mapping[str, Any]) -> Json:
    """Describe one path."""
    nothing = [None] * len(record["alphas"])
    return {
        "seed": seed,
        "alphas": record["alphas"],
        "train_loss": record["losses"][0],
        "test_loss": record["losses"][1],
        "train_accuracy": record["accuracies"][0] or nothing,
        "test_accuracy": record["accuracies"][1] or nothing,
        "batch_norm": record["descriptions"][0].get("batch_norm"),
        "seconds": record["seconds"],
        "forward_samples": record["forward_samples"],
        "bound": record["bound"],
    }


def remedy_entries(study: Study, runs: Sequence[tuple[str, Json]], small: Json, large: Json) -> list[Json]:
    """Summarise the runs of every variant as an arm, with its differences to both batch sizes."""
    found = []
    for variant in study.variant:
        mine = [run for name, run in runs if name == variant.name]
        one = arm(large["batch_size"], mine) | {"label": variant.name, "text": variant.text, "changes": variant.recipe}
        found.append(one | {"to_small": differences(small, one), "to_large": differences(large, one)})
    return found


def costs(*arms: Json) -> list[Json]:
    """List where the time went."""
    found = []
    for one in arms:
        runs = [run for run in one["runs"] if run["cost"]]
        steps = sum(run["cost"]["steps"] for run in runs)
        looked = sum(run["cost"]["evaluation_seconds"] for run in runs)
        found.append({
            "what": f"training, {one['label']}",
            "seconds": sum(run["cost"]["seconds"] for run in runs),
            "detail": f"{len(runs)} runs, {steps:,} updates",
        })
        found.append({
            "what": f"loss and accuracy on the way, {one['label']}",
            "seconds": looked,
            "detail": "both splits",
        })
        sharp = [run["sharpness"] for run in runs if run["sharpness"]]
        if sharp:
            evaluations = sum(record["evaluations"] for record in sharp)
            detail = f"{evaluations:,} loss-and-gradient evaluations on {sharp[0]['samples']:,} samples"
            found.append({
                "what": f"sharpness, {one['label']}",
                "seconds": sum(r["seconds"] for r in sharp),
                "detail": detail,
            })
    return found


def definitions(study: Study, facts: Mapping[str, Any]) -> list[Json]:
    """Explain the words of the report, each with what it is a bound of."""
    spec, norms = study.measures.sharpness, bool(facts.get("has_batch_norm"))
    found = [{"name": "Test accuracy and loss", "text": scored_text(study, facts), "link": None}]
    if spec:
        text = (
            f"How far the training loss f can climb in a small box around the weights x: "
            f"100 (max f - f(x)) / (1 + f(x)), each weight moving by at most {spec.radius:g} (|x_i| + 1). "
            f"The maximum is searched ({spec.search} search), so the number is a lower bound of the true one. "
            f"Measured on {samples_used(spec.samples, facts)}."
        )
        text += f" {statistics_text(spec.batch_norm, spec.batch_size)}" if norms else ""
        found.append({"name": "Sharpness", "text": text, "link": KESKAR})
    if study.measures.interpolation:
        text = "Loss and accuracy on the straight line (1 - alpha) small + alpha large through both minima. Exact at each point."
        found.append({"name": "Path between the minima", "text": text, "link": KESKAR})
    text = "Euclidean distance of the trained weights from the weights the run began with. Exact."
    found.append({"name": "Distance", "text": text, "link": KESKAR})
    text = (
        "Both batch sizes start from the same weights for the same seed; differences are taken within seeds, "
        "and intervals are Student's t over them, 95 %. Ratios are treated on the logarithm."
    )
    found.append({"name": "Paired seeds", "text": text, "link": None})
    return found


def scored_text(study: Study, facts: Mapping[str, Any]) -> str:
    """Explain the final accuracy and loss."""
    text = (
        "Accuracy is the share of test samples that are classified rightly, in percent; loss is the mean over test samples "
        "(of a likelihood: in nats). Both after the last update, over the whole test set."
    )
    score = study.measures.score
    if not facts.get("has_batch_norm"):
        return text
    if score is None or score.batch_norm == "running":
        return f"{text} {statistics_text('running', 0)}"
    after = "The curves on the way use running averages."
    return f"{text} {statistics_text(score.batch_norm, score.batch_size)} {after}"


def statistics_text(mode: str, size: int) -> str:
    """Say with which statistics batch norm normalises."""
    if mode == "running":
        return "Batch norm uses the running averages made while training."
    if mode == "recompute":
        return f"Batch norm uses statistics of the training set, made anew in batches of at most {size:,}."
    return f"Batch norm uses the statistics of evaluation batches of at most {size:,} samples, mixed the same way for every run."


def samples_used(limit: int, facts: Mapping[str, Any]) -> str:
    """Say on which part of the training set something was measured."""
    total = facts.get("train_samples") or 0
    if not limit or limit >= total:
        return f"all {total:,} training samples"
    return f"the same {limit:,} of {total:,} training samples for every run, chosen at random"
