"""The laboratory and toolkit for large-batch training.

Public names are resolved on first use, so that what only prints or plans does not load torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gengap.comparison.compare import Comparison as Comparison, compare as compare
    from gengap.comparison.question import comparison_study as comparison_study
    from gengap.core.errors import (
        BadInput as BadInput,
        GengapError as GengapError,
        Interrupted as Interrupted,
        LostRank as LostRank,
        MissingData as MissingData,
        OutOfSpace as OutOfSpace,
    )
    from gengap.core.estimate import Estimate as Estimate
    from gengap.core.recipe import Recipe as Recipe
    from gengap.data.augment import make_augmentation as make_augmentation
    from gengap.data.labels import randomise_labels as randomise_labels
    from gengap.diagnosis.doctor import doctor as doctor
    from gengap.diagnosis.finding import Diagnosis as Diagnosis, Finding as Finding
    from gengap.exploration.branching import CriticalBatch as CriticalBatch, critical_batch as critical_batch
    from gengap.exploration.sweep import SweepResult as SweepResult, stored_sweep as stored_sweep, sweep as sweep
    from gengap.exploration.tune import tune as tune
    from gengap.exploration.tuned import Tuned as Tuned
    from gengap.fitting.fit import Fits as Fits, fit as fit
    from gengap.measurement.run import Measurement as Measurement, measure as measure
    from gengap.measures.curvature.density import Density as Density, spectral_density as spectral_density
    from gengap.measures.curvature.eigenvalues import Eigenvalues as Eigenvalues, top_eigenvalues as top_eigenvalues
    from gengap.measures.curvature.stability import StableLr as StableLr, max_stable_lr as max_stable_lr
    from gengap.measures.curvature.trace import Trace as Trace, trace as trace
    from gengap.measures.diffusion import (
        DistanceCurve as DistanceCurve,
        DistanceFollower as DistanceFollower,
        distance_curve as distance_curve,
    )
    from gengap.measures.distance import (
        Distance as Distance,
        displacement_angle as displacement_angle,
        distance as distance,
        distance_ratio as distance_ratio,
    )
    from gengap.measures.evidence.log_evidence import Evidence as Evidence, log_evidence as log_evidence
    from gengap.measures.landscape.paths import Path as Path, interpolate as interpolate
    from gengap.measures.landscape.plane import Plane as Plane, plane as plane
    from gengap.measures.landscape.slices import (
        Slice1D as Slice1D,
        Slice2D as Slice2D,
        slice_1d as slice_1d,
        slice_2d as slice_2d,
    )
    from gengap.measures.landscape.trajectory import Trajectory as Trajectory, trajectory as trajectory
    from gengap.measures.noise.batches import two_batch_noise_scale as two_batch_noise_scale
    from gengap.measures.noise.covariance import (
        CovarianceEigenvalues as CovarianceEigenvalues,
        covariance_eigenvalues as covariance_eigenvalues,
        subspace_overlap as subspace_overlap,
    )
    from gengap.measures.noise.curvature_scale import (
        CurvatureNoiseScale as CurvatureNoiseScale,
        curvature_noise_scale as curvature_noise_scale,
    )
    from gengap.measures.noise.metric import adam_factors as adam_factors
    from gengap.measures.noise.monitor import NoiseScaleMonitor as NoiseScaleMonitor
    from gengap.measures.noise.noise_scale import (
        NoiseScale as NoiseScale,
        RecipeNoise as RecipeNoise,
        noise_scale as noise_scale,
        recipe_noise as recipe_noise,
    )
    from gengap.measures.noise.reading import NoiseScaleReading as NoiseScaleReading
    from gengap.measures.prior_plausibility import prior_plausibility as prior_plausibility
    from gengap.measures.random_potential import (
        RandomPotential as RandomPotential,
        loss_against_distance as loss_against_distance,
    )
    from gengap.measures.rescaling import (
        RescalingCheck as RescalingCheck,
        rescaling_check as rescaling_check,
        usual_measures as usual_measures,
    )
    from gengap.measures.rescalings import Rescaling as Rescaling, find_rescalings as find_rescalings
    from gengap.measures.sharpness.average_sharpness import (
        AverageSharpness as AverageSharpness,
        average_sharpness as average_sharpness,
    )
    from gengap.measures.sharpness.ball_sharpness import (
        BallSharpness as BallSharpness,
        ball_sharpness as ball_sharpness,
    )
    from gengap.measures.sharpness.box_sharpness import Sharpness as Sharpness, sharpness as sharpness
    from gengap.measures.sharpness.random_rise import RandomRise as RandomRise, random_rise as random_rise
    from gengap.measures.sharpness.steepness import SteepFraction as SteepFraction, steep_fraction as steep_fraction
    from gengap.measures.sharpness.subspace_sharpness import (
        SubspaceSharpness as SubspaceSharpness,
        subspace_sharpness as subspace_sharpness,
    )
    from gengap.nets.dropout import set_dropout as set_dropout
    from gengap.nets.norm_conversion import (
        average_statistics as average_statistics,
        convert_ghost_batch_norm as convert_ghost_batch_norm,
        convert_plain_batch_norm as convert_plain_batch_norm,
        convert_span_batch_norm as convert_span_batch_norm,
        last_batch_statistics as last_batch_statistics,
    )
    from gengap.nets.norms import (
        GhostBatchNorm1d as GhostBatchNorm1d,
        GhostBatchNorm2d as GhostBatchNorm2d,
        GhostBatchNorm3d as GhostBatchNorm3d,
    )
    from gengap.nets.span_norms import (
        SpanBatchNorm1d as SpanBatchNorm1d,
        SpanBatchNorm2d as SpanBatchNorm2d,
        SpanBatchNorm3d as SpanBatchNorm3d,
    )
    from gengap.objectives.adversarial import Adversarial as Adversarial
    from gengap.objectives.label_smoothing import smooth as smooth
    from gengap.objectives.stability import Stability as Stability
    from gengap.optim.adaqn import AdaQn as AdaQn
    from gengap.optim.conservative import Conservative as Conservative
    from gengap.optim.entropy_sgd import EntropySgd as EntropySgd, Walk as Walk
    from gengap.optim.full_batch import FullBatchGradientDescent as FullBatchGradientDescent
    from gengap.optim.gradient_noise import (
        IsotropicNoise as IsotropicNoise,
        MultiplicativeNoise as MultiplicativeNoise,
        matched_sigma as matched_sigma,
    )
    from gengap.optim.groups import no_decay_groups as no_decay_groups
    from gengap.optim.kfac import Curvature as Curvature, Kfac as Kfac
    from gengap.optim.lamb import Lamb as Lamb
    from gengap.optim.lars import Lars as Lars
    from gengap.optim.lbfgs import Lbfgs as Lbfgs
    from gengap.optim.mixing import Elastic as Elastic, PostLocal as PostLocal
    from gengap.optim.momentum_correction import correct_momentum as correct_momentum
    from gengap.optim.rmsprop_warmup import RmspropWarmup as RmspropWarmup
    from gengap.optim.sam import Sam as Sam
    from gengap.optim.svrg import Svrg as Svrg
    from gengap.optim.workers import Worker as Worker, Workers as Workers
    from gengap.problem.checkpoint import Checkpoint as Checkpoint, load_checkpoint as load_checkpoint
    from gengap.problem.from_model import loss_function as loss_function
    from gengap.problem.load import load as load
    from gengap.problem.problem import Problem as Problem
    from gengap.problem.validation import hold_out as hold_out
    from gengap.store.store import Store as Store
    from gengap.studies.study import (
        InterpolationSpec as InterpolationSpec,
        SharpnessSpec as SharpnessSpec,
        Study as Study,
        read_study as read_study,
    )
    from gengap.theory.branch_crossing import branch_crossing as branch_crossing
    from gengap.theory.critical_batch import fit_critical_batch as fit_critical_batch
    from gengap.theory.evidence_curve import evidence_curve as evidence_curve
    from gengap.theory.max_margin import margin_convergence as margin_convergence
    from gengap.theory.noise_prediction import predict_cost as predict_cost
    from gengap.theory.noise_scale import (
        SdeNoise as SdeNoise,
        recipe_noise_scale as recipe_noise_scale,
        sde_noise_scale as sde_noise_scale,
    )
    from gengap.theory.performance_model import large_batch_race as large_batch_race, plan_training as plan_training
    from gengap.theory.step_time import fit_step_time as fit_step_time
    from gengap.training.fleet import train_fleet as train_fleet
    from gengap.training.parts import SampleLR as SampleLR, ScheduledBatchSampler as ScheduledBatchSampler
    from gengap.training.piggyback import Piggyback as Piggyback, piggyback as piggyback
    from gengap.training.ranks import Ranks as Ranks, find_ranks as find_ranks
    from gengap.training.run import Run as Run
    from gengap.training.snapshots import Probe as Probe, Snapshot as Snapshot, SnapshotFolder as SnapshotFolder
    from gengap.training.solo import train as train

PUBLIC = {
    "AdaQn": "gengap.optim.adaqn",
    "Adversarial": "gengap.objectives.adversarial",
    "AverageSharpness": "gengap.measures.sharpness.average_sharpness",
    "BadInput": "gengap.core.errors",
    "BallSharpness": "gengap.measures.sharpness.ball_sharpness",
    "Checkpoint": "gengap.problem.checkpoint",
    "Comparison": "gengap.comparison.compare",
    "Conservative": "gengap.optim.conservative",
    "CovarianceEigenvalues": "gengap.measures.noise.covariance",
    "CriticalBatch": "gengap.exploration.branching",
    "Curvature": "gengap.optim.kfac",
    "CurvatureNoiseScale": "gengap.measures.noise.curvature_scale",
    "Density": "gengap.measures.curvature.density",
    "Diagnosis": "gengap.diagnosis.finding",
    "Distance": "gengap.measures.distance",
    "DistanceCurve": "gengap.measures.diffusion",
    "DistanceFollower": "gengap.measures.diffusion",
    "Eigenvalues": "gengap.measures.curvature.eigenvalues",
    "Elastic": "gengap.optim.mixing",
    "EntropySgd": "gengap.optim.entropy_sgd",
    "Estimate": "gengap.core.estimate",
    "Evidence": "gengap.measures.evidence.log_evidence",
    "Finding": "gengap.diagnosis.finding",
    "Fits": "gengap.fitting.fit",
    "FullBatchGradientDescent": "gengap.optim.full_batch",
    "GengapError": "gengap.core.errors",
    "GhostBatchNorm1d": "gengap.nets.norms",
    "GhostBatchNorm2d": "gengap.nets.norms",
    "GhostBatchNorm3d": "gengap.nets.norms",
    "InterpolationSpec": "gengap.studies.study",
    "Interrupted": "gengap.core.errors",
    "IsotropicNoise": "gengap.optim.gradient_noise",
    "Kfac": "gengap.optim.kfac",
    "Lamb": "gengap.optim.lamb",
    "Lars": "gengap.optim.lars",
    "Lbfgs": "gengap.optim.lbfgs",
    "LostRank": "gengap.core.errors",
    "Measurement": "gengap.measurement.run",
    "MissingData": "gengap.core.errors",
    "MultiplicativeNoise": "gengap.optim.gradient_noise",
    "NoiseScale": "gengap.measures.noise.noise_scale",
    "NoiseScaleMonitor": "gengap.measures.noise.monitor",
    "NoiseScaleReading": "gengap.measures.noise.reading",
    "OutOfSpace": "gengap.core.errors",
    "Path": "gengap.measures.landscape.paths",
    "Piggyback": "gengap.training.piggyback",
    "Plane": "gengap.measures.landscape.plane",
    "PostLocal": "gengap.optim.mixing",
    "Probe": "gengap.training.snapshots",
    "Problem": "gengap.problem.problem",
    "RandomPotential": "gengap.measures.random_potential",
    "RandomRise": "gengap.measures.sharpness.random_rise",
    "Ranks": "gengap.training.ranks",
    "Recipe": "gengap.core.recipe",
    "RecipeNoise": "gengap.measures.noise.noise_scale",
    "Rescaling": "gengap.measures.rescalings",
    "RescalingCheck": "gengap.measures.rescaling",
    "RmspropWarmup": "gengap.optim.rmsprop_warmup",
    "Run": "gengap.training.run",
    "Sam": "gengap.optim.sam",
    "SampleLR": "gengap.training.parts",
    "ScheduledBatchSampler": "gengap.training.parts",
    "SdeNoise": "gengap.theory.noise_scale",
    "Sharpness": "gengap.measures.sharpness.box_sharpness",
    "SharpnessSpec": "gengap.studies.study",
    "Slice1D": "gengap.measures.landscape.slices",
    "Slice2D": "gengap.measures.landscape.slices",
    "Snapshot": "gengap.training.snapshots",
    "SnapshotFolder": "gengap.training.snapshots",
    "SpanBatchNorm1d": "gengap.nets.span_norms",
    "SpanBatchNorm2d": "gengap.nets.span_norms",
    "SpanBatchNorm3d": "gengap.nets.span_norms",
    "Stability": "gengap.objectives.stability",
    "StableLr": "gengap.measures.curvature.stability",
    "SteepFraction": "gengap.measures.sharpness.steepness",
    "Store": "gengap.store.store",
    "Study": "gengap.studies.study",
    "SubspaceSharpness": "gengap.measures.sharpness.subspace_sharpness",
    "Svrg": "gengap.optim.svrg",
    "SweepResult": "gengap.exploration.sweep",
    "Trace": "gengap.measures.curvature.trace",
    "Trajectory": "gengap.measures.landscape.trajectory",
    "Tuned": "gengap.exploration.tuned",
    "Walk": "gengap.optim.entropy_sgd",
    "Worker": "gengap.optim.workers",
    "Workers": "gengap.optim.workers",
    "adam_factors": "gengap.measures.noise.metric",
    "average_sharpness": "gengap.measures.sharpness.average_sharpness",
    "average_statistics": "gengap.nets.norm_conversion",
    "ball_sharpness": "gengap.measures.sharpness.ball_sharpness",
    "branch_crossing": "gengap.theory.branch_crossing",
    "compare": "gengap.comparison.compare",
    "comparison_study": "gengap.comparison.question",
    "convert_ghost_batch_norm": "gengap.nets.norm_conversion",
    "convert_plain_batch_norm": "gengap.nets.norm_conversion",
    "convert_span_batch_norm": "gengap.nets.norm_conversion",
    "correct_momentum": "gengap.optim.momentum_correction",
    "covariance_eigenvalues": "gengap.measures.noise.covariance",
    "critical_batch": "gengap.exploration.branching",
    "curvature_noise_scale": "gengap.measures.noise.curvature_scale",
    "displacement_angle": "gengap.measures.distance",
    "distance": "gengap.measures.distance",
    "distance_curve": "gengap.measures.diffusion",
    "distance_ratio": "gengap.measures.distance",
    "doctor": "gengap.diagnosis.doctor",
    "evidence_curve": "gengap.theory.evidence_curve",
    "find_ranks": "gengap.training.ranks",
    "find_rescalings": "gengap.measures.rescalings",
    "fit": "gengap.fitting.fit",
    "fit_critical_batch": "gengap.theory.critical_batch",
    "fit_step_time": "gengap.theory.step_time",
    "hold_out": "gengap.problem.validation",
    "interpolate": "gengap.measures.landscape.paths",
    "large_batch_race": "gengap.theory.performance_model",
    "last_batch_statistics": "gengap.nets.norm_conversion",
    "load": "gengap.problem.load",
    "load_checkpoint": "gengap.problem.checkpoint",
    "log_evidence": "gengap.measures.evidence.log_evidence",
    "loss_against_distance": "gengap.measures.random_potential",
    "loss_function": "gengap.problem.from_model",
    "make_augmentation": "gengap.data.augment",
    "margin_convergence": "gengap.theory.max_margin",
    "matched_sigma": "gengap.optim.gradient_noise",
    "max_stable_lr": "gengap.measures.curvature.stability",
    "measure": "gengap.measurement.run",
    "no_decay_groups": "gengap.optim.groups",
    "noise_scale": "gengap.measures.noise.noise_scale",
    "piggyback": "gengap.training.piggyback",
    "plan_training": "gengap.theory.performance_model",
    "plane": "gengap.measures.landscape.plane",
    "predict_cost": "gengap.theory.noise_prediction",
    "prior_plausibility": "gengap.measures.prior_plausibility",
    "random_rise": "gengap.measures.sharpness.random_rise",
    "randomise_labels": "gengap.data.labels",
    "read_study": "gengap.studies.study",
    "recipe_noise": "gengap.measures.noise.noise_scale",
    "recipe_noise_scale": "gengap.theory.noise_scale",
    "rescaling_check": "gengap.measures.rescaling",
    "sde_noise_scale": "gengap.theory.noise_scale",
    "set_dropout": "gengap.nets.dropout",
    "sharpness": "gengap.measures.sharpness.box_sharpness",
    "slice_1d": "gengap.measures.landscape.slices",
    "slice_2d": "gengap.measures.landscape.slices",
    "smooth": "gengap.objectives.label_smoothing",
    "spectral_density": "gengap.measures.curvature.density",
    "steep_fraction": "gengap.measures.sharpness.steepness",
    "stored_sweep": "gengap.exploration.sweep",
    "subspace_overlap": "gengap.measures.noise.covariance",
    "subspace_sharpness": "gengap.measures.sharpness.subspace_sharpness",
    "sweep": "gengap.exploration.sweep",
    "top_eigenvalues": "gengap.measures.curvature.eigenvalues",
    "trace": "gengap.measures.curvature.trace",
    "train": "gengap.training.solo",
    "train_fleet": "gengap.training.fleet",
    "trajectory": "gengap.measures.landscape.trajectory",
    "tune": "gengap.exploration.tune",
    "two_batch_noise_scale": "gengap.measures.noise.batches",
    "usual_measures": "gengap.measures.rescaling",
}

__all__ = [*PUBLIC]

try:
    __version__ = version("gengap")
except PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'gengap' has no attribute {name!r}")
    found = getattr(import_module(PUBLIC[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
