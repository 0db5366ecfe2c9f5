"""Every optimizer that can be named, and whose it is; listed without loading torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CLOSURE = "calls the closure several times in a step"


@dataclass(frozen=True, slots=True)
class OptimizerEntry:
    """One optimizer.

    Attributes:
        builder: "module:class"; takes weights or groups of them first, or the model where `takes` says so.
        by: whose implementation it is.
        source: where the rule is described.
        arguments: keyword arguments of the class that a recipe may set.
        needs_closure: whether `step` must be given a closure.
        takes: what the class takes first.
        note: what a reader should know.
    """

    builder: str
    by: Literal["torch", "gengap"]
    source: str
    arguments: tuple[str, ...]
    needs_closure: bool = False
    takes: Literal["weights", "model"] = "weights"
    note: str = ""


ADAM = ("lr", "betas", "eps", "weight_decay")
KFAC = "Martens & Grosse 2015, arXiv:1503.05671; Grosse & Martens 2016, arXiv:1602.01407"

OPTIMIZERS: Mapping[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(
        "torch.optim:SGD",
        "torch",
        "Robbins & Monro 1951; Polyak 1964; Nesterov 1983",
        ("lr", "momentum", "nesterov", "weight_decay"),
        note="the rate multiplies the velocity",
    ),
    "adam": OptimizerEntry("torch.optim:Adam", "torch", "Kingma & Ba 2015, arXiv:1412.6980", ADAM),
    "adamw": OptimizerEntry(
        "torch.optim:AdamW", "torch", "Loshchilov & Hutter 2019, arXiv:1711.05101", ADAM, note="decoupled weight decay"
    ),
    "adagrad": OptimizerEntry(
        "torch.optim:Adagrad", "torch", "Duchi et al. 2011, JMLR 12", ("lr", "eps", "weight_decay")
    ),
    "rmsprop": OptimizerEntry(
        "torch.optim:RMSprop",
        "torch",
        "Tieleman & Hinton 2012",
        ("lr", "eps", "momentum", "weight_decay"),
    ),
    "lars": OptimizerEntry(
        "gengap.optim.lars:Lars",
        "gengap",
        "You et al. 2017, arXiv:1708.03888",
        ("lr", "momentum", "nesterov", "weight_decay", "trust", "eps"),
        note="the rate is inside the velocity: see momentum correction",
    ),
    "lamb": OptimizerEntry(
        "gengap.optim.lamb:Lamb",
        "gengap",
        "You et al. 2020, arXiv:1904.00962",
        ("lr", "betas", "eps", "weight_decay"),
        note="decoupled weight decay",
    ),
    "rmsprop-warmup": OptimizerEntry(
        "gengap.optim.rmsprop_warmup:RmspropWarmup",
        "gengap",
        "Akiba et al. 2017, arXiv:1711.04325",
        ("lr", "momentum", "eps", "weight_decay"),
        note="set_progress(epochs) before every step",
    ),
    "lbfgs": OptimizerEntry(
        "gengap.optim.lbfgs:Lbfgs",
        "torch",
        "Liu & Nocedal 1989, Math. Programming 45",
        ("lr", "weight_decay"),
        needs_closure=True,
        note=f"{CLOSURE}; torch's, wrapped for groups, weight decay and files without pickle",
    ),
    "full-batch-gd": OptimizerEntry(
        "gengap.optim.full_batch:FullBatchGradientDescent",
        "gengap",
        "Nocedal & Wright 2006, chapter 3",
        ("lr", "weight_decay"),
        needs_closure=True,
        note=f"{CLOSURE}; strong Wolfe or Armijo line search",
    ),
    "adaqn": OptimizerEntry(
        "gengap.optim.adaqn:AdaQn",
        "gengap",
        "Keskar & Berahas 2016, arXiv:1511.01169",
        ("lr", "eps", "weight_decay"),
        needs_closure=True,
        note="calls the closure two more times after every 20 steps; memory of 123 copies of the weights",
    ),
    "kfac": OptimizerEntry(
        "gengap.optim.kfac:Kfac",
        "gengap",
        KFAC,
        ("lr", "momentum", "weight_decay"),
        takes="model",
        note="linear and convolutional layers; momentum SGD for the rest",
    ),
}
