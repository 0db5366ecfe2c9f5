"""Everything that can be named: networks and data sets, listed without loading torch."""

from gengap.core.catalogue.data import DATA
from gengap.core.catalogue.entries import Data, Entry, Network
from gengap.core.catalogue.find import find, resolve
from gengap.core.catalogue.networks import KESKAR, NETWORKS

__all__ = ["DATA", "KESKAR", "NETWORKS", "Data", "Entry", "Network", "find", "resolve"]
