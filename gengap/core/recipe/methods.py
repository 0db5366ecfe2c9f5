"""Training methods: what an update does beyond one gradient and one step of the optimizer."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gengap.core.recipe.record import Record


class Sam(Record):
    """Sharpness-aware minimisation: the gradient is taken where the loss is highest within `rho` (Foret et al. 2021)."""

    name: Literal["sam"]
    rho: float = Field(default=0.05, gt=0)


class AdaptiveSam(Record):
    """SAM in a neighbourhood that scales with the weights (Kwon et al. 2021)."""

    name: Literal["asam"]
    rho: float = Field(default=0.5, gt=0)


class Conservative(Record):
    """Each batch is minimised with a penalty on the distance moved, inexactly (Keskar et al. 2017, eq. 5)."""

    name: Literal["conservative"]
    iterations: int = Field(strict=True, default=3, ge=1, description="of the inner solver on each batch")
    penalty: float = Field(default=1e-3, gt=0, description="lambda: of half the squared distance")
    inner: Literal["optimizer", "gd", "lbfgs"] = Field(
        default="optimizer", description="what solves the sub-problem; the recipe's optimizer, in the paper Adam"
    )


class EntropySgd(Record):
    """The gradient of the local entropy, by Langevin steps around the weights (Chaudhari et al. 2017)."""

    name: Literal["entropy-sgd"]
    steps: int = Field(strict=True, default=20, ge=1, description="Langevin steps in an update")
    scope: float = Field(default=1e-4, gt=0, description="gamma: stiffness of the neighbourhood")
    scoping: float = Field(default=1e-3, ge=0, description="growth of the scope in an update")
    inner_lr: float = Field(default=0.1, gt=0)
    noise: float = Field(default=1e-4, ge=0)
    average: float = Field(default=0.75, gt=0, le=1, description="alpha: weight of the newest point in the mean")


class Svrg(Record):
    """Stochastic gradients corrected by the full gradient at a snapshot (Johnson & Zhang 2013)."""

    name: Literal["svrg"]
    epochs: int = Field(strict=True, default=1, ge=1, description="between two snapshots")


class ElasticAveraging(Record):
    """Workers that are drawn to a common centre (Zhang, Choromanska & LeCun 2015); the batch is shared among them."""

    name: Literal["elastic-averaging"]
    workers: int = Field(strict=True, default=4, ge=1)
    period: int = Field(strict=True, default=10, ge=1, description="updates between two pulls")
    pull: float = Field(default=0.9, gt=0, le=1, description="beta: share by which the centre follows")


class PostLocalSgd(Record):
    """Workers that step alone and are averaged every `period` updates from `start` epochs on (Lin et al. 2020)."""

    name: Literal["post-local-sgd"]
    workers: int = Field(strict=True, default=4, ge=1)
    period: int = Field(strict=True, default=8, ge=1)
    start: float = Field(default=0.0, ge=0, description="epochs of ordinary training before")


Method = Annotated[
    Sam | AdaptiveSam | Conservative | EntropySgd | Svrg | ElasticAveraging | PostLocalSgd, Field(discriminator="name")
]


class MultiplicativeNoise(Record):
    """Every sample's loss is multiplied by a draw from N(1, sigma^2) (Hoffer et al. 2017).

    Without `sigma` it is the one that gives a batch the gradient covariance of `reference_batch`:
    sigma^2 = B / reference_batch - 1.
    """

    name: Literal["multiplicative"]
    sigma: float | None = Field(default=None, gt=0)
    reference_batch: int | None = Field(strict=True, default=None, ge=1)


class IsotropicNoise(Record):
    """Langevin dynamics: noise of variance 2 lr temperature in every weight of an update (Welling & Teh 2011)."""

    name: Literal["isotropic"]
    temperature: float = Field(gt=0)


GradientNoise = Annotated[MultiplicativeNoise | IsotropicNoise, Field(discriminator="name")]


class Adversarial(Record):
    """Part of the loss is taken at inputs moved by `epsilon` along the sign of their gradient (Goodfellow et al. 2015)."""

    epsilon: float = Field(gt=0)
    share: float = Field(default=0.5, gt=0, le=1, description="of the adversarial loss")


class Stability(Record):
    """A penalty on how far Gaussian noise in the inputs moves the outputs (Zheng et al. 2016)."""

    sigma: float = Field(gt=0)
    weight: float = Field(default=1.0, gt=0)
    distance: Literal["kl", "l2"] = "kl"


class Augmentation(Record):
    """Random changes of images, fixed by (seed, epoch, sample); what else it may be given depends on the name."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
