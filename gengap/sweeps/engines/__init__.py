"""Where the runs of a sweep are made: this process, a pool of them, a Ray cluster, or jobs of Slurm."""

from gengap.sweeps.engines.build import ENGINES, make_engine

__all__ = ["ENGINES", "make_engine"]
