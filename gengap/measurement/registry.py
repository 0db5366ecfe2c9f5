"""Every measure of `gengap measure`: adding one is adding an entry to the file of its group."""

from collections.abc import Collection, Mapping

from gengap.measurement.entry import Measure
from gengap.measurement.groups import distance, evidence, hessian, landscape, loss, noise, reparametrisation, sharpness
from gengap.measurement.task import Task

FILES = (loss, distance, sharpness, hessian, noise, landscape, evidence, reparametrisation)
MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in sorted((one for file in FILES for one in file.MEASURES), key=lambda measure: measure.rank)
}


def asked(task: Task, also: Collection[str] = ()) -> list[Measure]:
    """List the measures of the groups that were asked for and those that are there, the most important first."""
    return [one for one in MEASURES.values() if one.group in task.settings.groups or one.name in also]
