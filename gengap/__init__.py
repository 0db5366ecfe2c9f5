"""The laboratory and toolkit for large-batch training.

Public names are resolved on first use, so that what only prints or plans does not load torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gengap.comparison import Comparison, compare, comparison_study
    from gengap.core.errors import BadInput, GengapError, Interrupted, MissingData, OutOfSpace
    from gengap.core.estimate import Estimate
    from gengap.core.recipe import Recipe
    from gengap.measurement.run import Measurement, measure
    from gengap.measures.curvature.density import Density, spectral_density
    from gengap.measures.curvature.eigenvalues import Eigenvalues, top_eigenvalues
    from gengap.measures.curvature.stability import StableLr, max_stable_lr
    from gengap.measures.curvature.trace import Trace, trace
    from gengap.measures.diffusion import DistanceCurve, DistanceFollower, distance_curve
    from gengap.measures.distance import Distance, displacement_angle, distance, distance_ratio
    from gengap.measures.evidence.log_evidence import Evidence, log_evidence
    from gengap.measures.landscape.paths import Path, interpolate
    from gengap.measures.landscape.plane import Plane, plane
    from gengap.measures.landscape.slices import Slice1D, Slice2D, slice_1d, slice_2d
    from gengap.measures.landscape.trajectory import Trajectory, trajectory
    from gengap.measures.noise.batches import two_batch_noise_scale
    from gengap.measures.noise.covariance import CovarianceEigenvalues, covariance_eigenvalues, subspace_overlap
    from gengap.measures.noise.curvature_scale import CurvatureNoiseScale, curvature_noise_scale
    from gengap.measures.noise.metric import adam_factors
    from gengap.measures.noise.monitor import NoiseScaleMonitor
    from gengap.measures.noise.noise_scale import NoiseScale, RecipeNoise, noise_scale, recipe_noise
    from gengap.measures.noise.reading import NoiseScaleReading
    from gengap.measures.random_potential import RandomPotential, loss_against_distance
    from gengap.measures.rescaling import RescalingCheck, rescaling_check, usual_measures
    from gengap.measures.rescalings import Rescaling, find_rescalings
    from gengap.measures.sharpness.average_sharpness import AverageSharpness, average_sharpness
    from gengap.measures.sharpness.ball_sharpness import BallSharpness, ball_sharpness
    from gengap.measures.sharpness.box_sharpness import Sharpness, sharpness
    from gengap.measures.sharpness.random_rise import RandomRise, random_rise
    from gengap.measures.sharpness.steepness import SteepFraction, steep_fraction
    from gengap.measures.sharpness.subspace_sharpness import SubspaceSharpness, subspace_sharpness
    from gengap.problem.checkpoint import Checkpoint, load_checkpoint
    from gengap.problem.from_model import loss_function
    from gengap.problem.load import load
    from gengap.problem.problem import Problem
    from gengap.store.store import Store
    from gengap.studies.study import InterpolationSpec, SharpnessSpec, Study, read_study
    from gengap.theory.noise_scale import SdeNoise, recipe_noise_scale, sde_noise_scale
    from gengap.training.run import Run
    from gengap.training.snapshots import Probe, Snapshot, SnapshotFolder
    from gengap.training.solo import train

PUBLIC = {
    "AverageSharpness": "gengap.measures.sharpness.average_sharpness",
    "BadInput": "gengap.core.errors",
    "BallSharpness": "gengap.measures.sharpness.ball_sharpness",
    "Checkpoint": "gengap.problem.checkpoint",
    "Comparison": "gengap.comparison",
    "CovarianceEigenvalues": "gengap.measures.noise.covariance",
    "CurvatureNoiseScale": "gengap.measures.noise.curvature_scale",
    "Density": "gengap.measures.curvature.density",
    "Distance": "gengap.measures.distance",
    "DistanceCurve": "gengap.measures.diffusion",
    "DistanceFollower": "gengap.measures.diffusion",
    "Eigenvalues": "gengap.measures.curvature.eigenvalues",
    "Estimate": "gengap.core.estimate",
    "Evidence": "gengap.measures.evidence.log_evidence",
    "GengapError": "gengap.core.errors",
    "InterpolationSpec": "gengap.studies.study",
    "Interrupted": "gengap.core.errors",
    "Measurement": "gengap.measurement.run",
    "MissingData": "gengap.core.errors",
    "NoiseScale": "gengap.measures.noise.noise_scale",
    "NoiseScaleMonitor": "gengap.measures.noise.monitor",
    "NoiseScaleReading": "gengap.measures.noise.reading",
    "OutOfSpace": "gengap.core.errors",
    "Path": "gengap.measures.landscape.paths",
    "Plane": "gengap.measures.landscape.plane",
    "Probe": "gengap.training.snapshots",
    "Problem": "gengap.problem.problem",
    "RandomPotential": "gengap.measures.random_potential",
    "RandomRise": "gengap.measures.sharpness.random_rise",
    "Recipe": "gengap.core.recipe",
    "RecipeNoise": "gengap.measures.noise.noise_scale",
    "Rescaling": "gengap.measures.rescalings",
    "RescalingCheck": "gengap.measures.rescaling",
    "Run": "gengap.training.run",
    "SdeNoise": "gengap.theory.noise_scale",
    "Sharpness": "gengap.measures.sharpness.box_sharpness",
    "SharpnessSpec": "gengap.studies.study",
    "Slice1D": "gengap.measures.landscape.slices",
    "Slice2D": "gengap.measures.landscape.slices",
    "Snapshot": "gengap.training.snapshots",
    "SnapshotFolder": "gengap.training.snapshots",
    "StableLr": "gengap.measures.curvature.stability",
    "SteepFraction": "gengap.measures.sharpness.steepness",
    "Store": "gengap.store.store",
    "Study": "gengap.studies.study",
    "SubspaceSharpness": "gengap.measures.sharpness.subspace_sharpness",
    "Trace": "gengap.measures.curvature.trace",
    "Trajectory": "gengap.measures.landscape.trajectory",
    "adam_factors": "gengap.measures.noise.metric",
    "average_sharpness": "gengap.measures.sharpness.average_sharpness",
    "ball_sharpness": "gengap.measures.sharpness.ball_sharpness",
    "compare": "gengap.comparison",
    "comparison_study": "gengap.comparison",
    "covariance_eigenvalues": "gengap.measures.noise.covariance",
    "curvature_noise_scale": "gengap.measures.noise.curvature_scale",
    "displacement_angle": "gengap.measures.distance",
    "distance": "gengap.measures.distance",
    "distance_curve": "gengap.measures.diffusion",
    "distance_ratio": "gengap.measures.distance",
    "find_rescalings": "gengap.measures.rescalings",
    "interpolate": "gengap.measures.landscape.paths",
    "load": "gengap.problem.load",
    "load_checkpoint": "gengap.problem.checkpoint",
    "log_evidence": "gengap.measures.evidence.log_evidence",
    "loss_against_distance": "gengap.measures.random_potential",
    "loss_function": "gengap.problem.from_model",
    "max_stable_lr": "gengap.measures.curvature.stability",
    "measure": "gengap.measurement.run",
    "noise_scale": "gengap.measures.noise.noise_scale",
    "plane": "gengap.measures.landscape.plane",
    "random_rise": "gengap.measures.sharpness.random_rise",
    "read_study": "gengap.studies.study",
    "recipe_noise": "gengap.measures.noise.noise_scale",
    "recipe_noise_scale": "gengap.theory.noise_scale",
    "rescaling_check": "gengap.measures.rescaling",
    "sde_noise_scale": "gengap.theory.noise_scale",
    "sharpness": "gengap.measures.sharpness.box_sharpness",
    "slice_1d": "gengap.measures.landscape.slices",
    "slice_2d": "gengap.measures.landscape.slices",
    "spectral_density": "gengap.measures.curvature.density",
    "steep_fraction": "gengap.measures.sharpness.steepness",
    "subspace_overlap": "gengap.measures.noise.covariance",
    "subspace_sharpness": "gengap.measures.sharpness.subspace_sharpness",
    "top_eigenvalues": "gengap.measures.curvature.eigenvalues",
    "trace": "gengap.measures.curvature.trace",
    "train": "gengap.training.solo",
    "trajectory": "gengap.measures.landscape.trajectory",
    "two_batch_noise_scale": "gengap.measures.noise.batches",
    "usual_measures": "gengap.measures.rescaling",
}

__all__ = [
    "AverageSharpness",
    "BadInput",
    "BallSharpness",
    "Checkpoint",
    "Comparison",
    "CovarianceEigenvalues",
    "CurvatureNoiseScale",
    "Density",
    "Distance",
    "DistanceCurve",
    "DistanceFollower",
    "Eigenvalues",
    "Estimate",
    "Evidence",
    "GengapError",
    "InterpolationSpec",
    "Interrupted",
    "Measurement",
    "MissingData",
    "NoiseScale",
    "NoiseScaleMonitor",
    "NoiseScaleReading",
    "OutOfSpace",
    "Path",
    "Plane",
    "Probe",
    "Problem",
    "RandomPotential",
    "RandomRise",
    "Recipe",
    "RecipeNoise",
    "Rescaling",
    "RescalingCheck",
    "Run",
    "SdeNoise",
    "Sharpness",
    "SharpnessSpec",
    "Slice1D",
    "Slice2D",
    "Snapshot",
    "SnapshotFolder",
    "StableLr",
    "SteepFraction",
    "Store",
    "Study",
    "SubspaceSharpness",
    "Trace",
    "Trajectory",
    "adam_factors",
    "average_sharpness",
    "ball_sharpness",
    "compare",
    "comparison_study",
    "covariance_eigenvalues",
    "curvature_noise_scale",
    "displacement_angle",
    "distance",
    "distance_curve",
    "distance_ratio",
    "find_rescalings",
    "interpolate",
    "load",
    "load_checkpoint",
    "log_evidence",
    "loss_against_distance",
    "loss_function",
    "max_stable_lr",
    "measure",
    "noise_scale",
    "plane",
    "random_rise",
    "read_study",
    "recipe_noise",
    "recipe_noise_scale",
    "rescaling_check",
    "sde_noise_scale",
    "sharpness",
    "slice_1d",
    "slice_2d",
    "spectral_density",
    "steep_fraction",
    "subspace_overlap",
    "subspace_sharpness",
    "top_eigenvalues",
    "trace",
    "train",
    "trajectory",
    "two_batch_noise_scale",
    "usual_measures",
]

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
