"""Every measure of `gengap measure`: adding one is adding an entry to the file of its group."""

from collections.abc import Mapping

from gengap.measurement.entry import Measure
from gengap.measurement.groups import distance, evidence, hessian, landscape, loss, noise, reparametrisation, sharpness
from gengap.measurement.task import Task

FILES = (loss, distance, sharpness, hessian, noise, landscape, evidence, reparametrisation)
MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in sorted((one for file in FILES for one in file.MEASURES), key=lambda measure: measure.rank)
}


def asked(task: Task) -> list[Measure]:
    """List the measures of the groups that were asked for, the most important first."""
    return [measure for measure in MEASURES.values() if measure.group in task.settings.groups]
