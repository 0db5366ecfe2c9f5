"""What brings a large batch back to the accuracy of a small one: each remedy as fields of a recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gengap.core.errors import BadInput

Fields = dict[str, Any]
HOFFER = "Hoffer et al. 2017, arXiv:1705.08741"
KESKAR = "Keskar et al. 2017, arXiv:1609.04836"
GOYAL = "Goyal et al. 2017, arXiv:1706.02677"
WARMUP = 5  # epochs, those of Goyal et al.; a shorter budget spends a quarter on it, or would not reach its rate


@dataclass(frozen=True, slots=True)
class Remedy:
    """One remedy.

    Attributes:
        text: what it does, a phrase.
        source: where it is described.
        fields: (small batch, large batch) -> recipe fields that the large batch is trained with besides the shared ones.
    """

    text: str
    source: str
    fields: Callable[[int, int], Fields]


def always(**fields: Any) -> Callable[[int, int], Fields]:
    """Make a remedy that does not depend on the batch sizes."""
    return lambda small, large: dict(fields)  # noqa: ARG005


def rule(name: str) -> Callable[[int, int], Fields]:
    """Make a remedy that scales the learning rate from the small batch."""
    return lambda small, large: {"lr_rule": {"name": name, "reference_batch": small}}  # noqa: ARG005


REMEDIES: Mapping[str, Remedy] = {
    "none": Remedy("the large batch as it is", "", always()),
    "sqrt-lr": Remedy("lr times the square root of the batch ratio", HOFFER, rule("sqrt")),
    "linear-lr": Remedy("lr times the batch ratio", GOYAL, rule("linear")),
    "warmup": Remedy(
        "lr rises over 5 epochs, or a quarter of a shorter budget: from that of the small batch where lr is scaled, else from 0",
        GOYAL,
        always(warmup={"epochs": WARMUP}),
    ),
    "clip": Remedy("gradients longer than 5 are cut to 5", HOFFER, always(clip_norm=5.0)),
    "ghost-bn": Remedy(
        "batch norm over groups of the size of the small batch",
        HOFFER,
        lambda small, large: {"ghost_batch": max(2, small)},  # noqa: ARG005
    ),
    "regime-adaptation": Remedy(
        "as many updates as the small batch makes",
        HOFFER,
        lambda small, large: {"regime_adaptation": small},  # noqa: ARG005
    ),
    "noise": Remedy(
        "losses of samples weighted by noise that gives gradients the covariance of the small batch",
        HOFFER,
        lambda small, large: {"gradient_noise": {"name": "multiplicative", "reference_batch": small}},  # noqa: ARG005
    ),
    "conservative": Remedy("3 steps for each batch, held near where they began", KESKAR, always(method="conservative")),
    "augment": Remedy("aggressive augmentation: reflect, rotate, translate", KESKAR, always(augment="keskar")),
    "crop-flip": Remedy("images padded, cropped at random and flipped", HOFFER, always(augment="crop-flip")),
    "adversarial": Remedy(
        "half of the loss at inputs moved by 0.01 along the sign of their gradient",
        "Goodfellow et al. 2015, arXiv:1412.6572",
        always(adversarial={"epsilon": 0.01}),
    ),
    "stability": Remedy(
        "a penalty on how far noise of 0.1 in the inputs moves the outputs",
        "Zheng et al. 2016, arXiv:1604.04326",
        always(stability={"sigma": 0.1}),
    ),
    "label-smoothing": Remedy(
        "a tenth of each label spread over all classes",
        "Szegedy et al. 2016, arXiv:1512.00567",
        always(label_smoothing=0.1),
    ),
    "sam": Remedy(
        "sharpness-aware minimisation, rho 0.05", "Foret et al. 2021, arXiv:2010.01412", always(method="sam")
    ),
    "asam": Remedy("adaptive SAM, rho 0.5", "Kwon et al. 2021, arXiv:2102.11600", always(method="asam")),
    "entropy-sgd": Remedy(
        "the gradient of the local entropy", "Chaudhari et al. 2017, arXiv:1611.01838", always(method="entropy-sgd")
    ),
    "svrg": Remedy("gradients corrected at a snapshot every epoch", "Johnson & Zhang 2013", always(method="svrg")),
    "elastic-averaging": Remedy(
        "4 workers drawn to a common centre at every update",
        "Zhang et al. 2015, arXiv:1412.6651",
        always(method={"name": "elastic-averaging", "period": 1}),
    ),
    "post-local-sgd": Remedy(
        "4 workers averaged every 8 updates", "Lin et al. 2020, arXiv:1808.07217", always(method="post-local-sgd")
    ),
    "grow-batch": Remedy(
        "the small batch for a quarter of the epochs, then the large one",
        KESKAR,
        lambda small, large: {"batch_size": small, "batch_schedule": {"name": "switch", "sizes": [large]}},
    ),
    "dynamic-batch": Remedy(
        "from the small batch up to the large one as the gradient's noise asks for",
        "Byrd et al. 2012",
        lambda small, large: {"batch_size": small, "batch_schedule": {"name": "dynamic", "limit": large}},
    ),
}
HOFFER_COLUMNS = ("sqrt-lr+clip", "sqrt-lr+clip+ghost-bn", "sqrt-lr+clip+ghost-bn+regime-adaptation")


def names_of(text: str) -> tuple[str, ...]:
    """Read "none,sqrt-lr,sqrt-lr+ghost-bn".

    Args:
        text: remedies with commas between them, those that go together joined by "+"; "hoffer" stands for the columns of
            Hoffer et al.'s table.

    Returns:
        The remedies that change something, each once, in the order given; "none" joined to another is left out.

    Raises:
        BadInput: one is not known.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise BadInput(f"--remedy is {text!r}; name at least one of {', '.join(REMEDIES)}")
    whole = [name for part in parts for name in (HOFFER_COLUMNS if part == "hoffer" else (part,))]
    return tuple(dict.fromkeys(name for name in map(joined, whole) if name))


def joined(text: str) -> str:
    """Write remedies that go together in one way.

    Args:
        text: remedies with "+" between them, with or without blanks.

    Returns:
        The same, each once, without blanks and without "none"; "" where nothing is left.

    Raises:
        BadInput: one is not known.
    """
    ones = [one.strip() for one in text.split("+")]
    for one in ones:
        if one not in REMEDIES:
            raise BadInput(f"there is no remedy {one!r}; known are {', '.join(REMEDIES)}, and hoffer for three of them")
    return "+".join(dict.fromkeys(one for one in ones if one != "none"))


def fields_of(name: str, shared: Mapping[str, Any], *, small: int, large: int) -> Fields:
    """Give the recipe fields of a remedy.

    Args:
        name: one remedy, or several joined by "+".
        shared: fields that all runs share: a budget of epochs places the switch of "grow-batch", and shortens a warm-up.
        small: the small batch.
        large: the large batch.

    Returns:
        Fields that differ from the plain large batch.

    Raises:
        BadInput: two of them set the same field, or scale lr for a batch that grows; "grow-batch" without a budget of
            epochs.
    """
    found = together(name.split("+"), small=small, large=large)
    epochs = dict(shared.get("budget") or {}).get("epochs")
    if "warmup" in found:
        start = {"start": "reference"} if "lr_rule" in found else {}
        found["warmup"] = {"epochs": min(WARMUP, epochs / 4) if epochs else WARMUP, **start}
    schedule = found.get("batch_schedule")
    if schedule and schedule["name"] == "switch":
        if not epochs:
            raise BadInput("the remedy grow-batch switches after a quarter of the epochs; give a budget of epochs")
        found["batch_schedule"] = {**schedule, "milestones": [epochs / 4]}
    return found


def together(ones: Sequence[str], *, small: int, large: int) -> Fields:
    """Join the fields of remedies.

    Args:
        ones: their names.
        small: the small batch.
        large: the large batch.

    Returns:
        All their fields.

    Raises:
        BadInput: two of them set the same field, or one scales lr and another has the batch grow.
    """
    found: Fields = {}
    owner: dict[str, str] = {}
    for one in ones:
        fields = REMEDIES[one].fields(small, large)
        for field in fields:
            if field in owner:
                raise BadInput(f"the remedies {owner[field]} and {one} both set {field}; join only one of them")
            owner[field] = one
        found |= fields
    if "lr_rule" in found and "batch_schedule" in found:
        raise BadInput(
            f"the remedy {owner['lr_rule']} goes by the first batch, which with {owner['batch_schedule']} is the small one, "
            "so it changes nothing; join only one of them"
        )
    return found


def text_of(name: str) -> str:
    """Say what a remedy does."""
    return "; ".join(REMEDIES[one].text for one in name.split("+"))
