"""Do settings fit a data set? Asked before anything heavy is imported or done."""

from unifocal.lab.data.cases import Dataset
from unifocal.lab.errors import LabError
from unifocal.lab.networks.chosen import Chosen
from unifocal.lab.settings import Settings, each_axis


def check_fit(dataset: Dataset, settings: Settings) -> None:
    """Raise a LabError if the data cannot be prepared so, or a network does not take what it is given."""
    check_preparation(dataset, settings)
    check_networks(dataset, settings)


def check_preparation(dataset: Dataset, settings: Settings) -> None:
    """Raise a LabError if the settings do not fit pictures or volumes, whichever the data set holds."""
    if dataset.dimension == 2 and settings.spacing is not None:
        raise LabError(f"spacing: expected volumes; {dataset.name} holds pictures, which have none. Use size.")
    if dataset.dimension == 3 and settings.colour:
        raise LabError(f"colour: expected pictures; {dataset.name} holds volumes, which have none.")
    low, high = settings.clip_percentiles or (0, 100)
    if low < 0 or high > 100:
        raise LabError(f"clip_percentiles: expected two numbers from 0 to 100; got {low:g},{high:g}.")
    for name in ("size", "spacing", "crop"):
        values = getattr(settings, name)
        if values is not None:
            each_axis(name, values, dataset.dimension)


def check_networks(dataset: Dataset, settings: Settings) -> None:
    """Raise a LabError if a network is none, or does not take its arguments or the size of patches or images."""
    for network in settings.networks:
        chosen = Chosen.of(network, dataset.dimension, settings.width)
        chosen.check(settings.deep_supervision != "none")
        for name in ("patch", "crop", "size"):
            size = getattr(settings, name)
            if size is not None:
                chosen.check_size(each_axis(name, size, dataset.dimension), name)
                break  # the size of whole images does not matter where patches are cut
