"""On what a number was made: machine and versions, read without importing torch."""

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")


def environment() -> dict[str, str | int]:
    """Describe machine and software.

    Returns:
        System, processor and its core count, Python and the versions of the packages that numbers depend on.
    """
    own, others = versions()
    return {
        "gengap": own,
        "python": platform.python_version(),
        **others,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count() or 1,
    }


@cache
def versions() -> tuple[str, dict[str, str]]:
    """Look up the versions of this package and of others, once: it reads files, and a sweep notes them for every run."""
    try:
        own = metadata.version("gengap")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return own, {name: metadata.version(name) for name in PACKAGES}


@cache
def processor() -> str:
    """Name the processor; /proc/cpuinfo says more than `platform.processor`, where it exists."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
