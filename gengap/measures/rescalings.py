"""Changes of the weights of a network that leave its function as it is."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from gengap.core.records import Record

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
HOMOGENEOUS = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Flatten, nn.Unflatten, nn.Upsample, nn.PixelShuffle),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
POOLS = tuple(
    getattr(F, f"{kind}_pool{d}d") for d in (1, 2, 3) for kind in ("max", "avg", "adaptive_max", "adaptive_avg")
)
FUNCTIONS = (F.relu, torch.relu, F.leaky_relu, F.dropout, torch.flatten, torch.reshape, torch.permute, *POOLS)
METHODS = frozenset({"relu", "relu_", "flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze"})
SHAPES = frozenset({"size", "dim"})  # methods that ask for no numbers

Kind = Literal["pair", "normalised"]


@dataclass(frozen=True, slots=True)
class Rescaling(Record):
    """One way to rescale a network.

    Attributes:
        kind: "pair": two layers with nothing between them but positively homogeneous ones, f(a x) = a f(x) for a > 0: the
            first is multiplied by alpha, the second divided. "normalised": a layer in front of a normalisation,
            which takes the factor out again up to its eps.
        first: module whose weights and bias are multiplied.
        second: module whose weights are divided, or the normalisation.
        powers: by the name of a weight or buffer, the power of alpha that it is multiplied by; all others stay.
    """

    kind: Kind
    first: str
    second: str
    powers: dict[str, int]

    def applied(self, tree: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
        """Rescale weights or buffers; what the rescaling does not touch is shared with the given tree."""
        return {name: p * alpha ** self.powers[name] if name in self.powers else p for name, p in tree.items()}

    def __str__(self) -> str:
        if self.kind == "pair":
            return f"{self.first} multiplied, {self.second} divided"
        return f"{self.first} multiplied, in front of the normalisation {self.second}"


@dataclass(slots=True, eq=False)
class Site:
    """A place in the network where something is done to one signal, and the only place that its result goes to."""

    name: str
    module: nn.Module | None
    homogeneous: bool
    after: "Site | None" = None


def find_rescalings(model: nn.Module) -> tuple[Rescaling, ...]:
    """Find the rescalings of a network.

    The network is traced symbolically. One that cannot be, because its course depends on the numbers it is given, is
    searched in its `nn.Sequential` parts only.

    Args:
        model: any module; not modified.

    Returns:
        Rescalings in the order of the layers, those of pairs first; none where there are none. Layers whose weights are
        used elsewhere too are left out.
    """
    used_once = unshared(model)
    found = [
        rescaling
        for site in sites(model)
        if site.module is not None and type(site.module) in LAYERS
        if (rescaling := rescaling_at(site, site.module)) is not None
        if all(name in used_once for name in rescaling.powers)
    ]
    return tuple(sorted(found, key=lambda one: one.kind != "pair"))


def rescaling_at(site: Site, layer: nn.Module) -> Rescaling | None:
    """Follow the signal of a layer to the next layer, or to a normalisation right behind it."""
    up = {f"{site.name}.{part}": 1 for part, _ in layer.named_parameters()}
    after = site.after
    if after is not None and isinstance(after.module, NORMS):
        statistics = {"running_mean": 1, "running_var": 2}
        kept = {
            f"{after.name}.{part}": statistics[part] for part, _ in after.module.named_buffers() if part in statistics
        }
        return Rescaling("normalised", site.name, after.name, up | kept)
    while after is not None and after.homogeneous:
        after = after.after
    if after is None or after.module is None or type(after.module) not in LAYERS:
        return None
    return Rescaling("pair", site.name, after.name, up | {f"{after.name}.weight": -1})


def sites(model: nn.Module) -> list[Site]:
    """List the places of a network, each linked with the one its result goes to."""
    try:
        return traced(fx.symbolic_trace(model))
    except Exception:  # a user's forward may do anything to the stand-ins that it is traced with
        return [site for chain in chains(model) for site in chain]


def traced(graph: fx.GraphModule) -> list[Site]:
    """Read the places from a symbolic trace."""
    modules = dict(graph.named_modules())
    calls: dict[fx.Node, Site] = {}
    for node in graph.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        calls[node] = Site(str(node.target) if module is not None else "", module, is_homogeneous(node, module))
    for node, site in calls.items():
        users = [user for user in node.users if not (user.op == "call_method" and user.target in SHAPES)]
        if len(users) == 1 and users[0].args[:1] == (node,):
            site.after = calls[users[0]]
    names = [site.name for site in calls.values() if site.name]
    return [site for site in calls.values() if names.count(site.name) <= 1]


def is_homogeneous(node: fx.Node, module: nn.Module | None) -> bool:
    """Tell whether a node multiplies its result by a where its first argument is multiplied by a > 0."""
    if node.op == "call_module":
        return isinstance(module, HOMOGENEOUS)
    if node.op == "call_function":
        return node.target in FUNCTIONS
    return node.op == "call_method" and node.target in METHODS


def chains(model: nn.Module) -> Iterator[list[Site]]:
    """Yield the layers of each outermost Sequential, linked in their order."""
    inside: set[str] = set()
    for name, module in model.named_modules():
        if type(module) is not nn.Sequential or name in inside:
            continue
        inside |= {f"{name}.{part}" if name else part for part, _ in module.named_modules()}
        chain = [Site(path, part, isinstance(part, HOMOGENEOUS)) for path, part in flat(name, module)]
        for site, after in itertools.pairwise(chain):
            site.after = after
        yield chain


def flat(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what a Sequential applies, those inside it resolved."""
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for key, part in module.named_children():
        yield from flat(f"{name}.{key}" if name else key, part)


def unshared(model: nn.Module) -> set[str]:
    """Name the parameters and buffers that have one name only."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    places = [id(tensor) for _, tensor in named]
    return {name for name, tensor in named if places.count(id(tensor)) == 1}
