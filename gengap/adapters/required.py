"""Packages that only an adapter needs."""

from importlib import import_module
from types import ModuleType

from gengap.core.errors import BadInput


def required(module: str) -> ModuleType:
    """Import a package that is not among gengap's own dependencies.

    Args:
        module: its dotted name; the extra of gengap that installs it is called as the package is.

    Returns:
        The module.

    Raises:
        BadInput: it is not installed, or lacks something that it needs.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise BadInput(
            f'{package} cannot be imported ({error}); install it with: pip install "gengap[{package}]"'
        ) from error
