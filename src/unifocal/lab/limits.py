"""What of the data sets that can be read `compare` cannot train on yet."""

from unifocal.lab.data.cases import IGNORE, Dataset
from unifocal.lab.errors import LabError


def check_trainable(dataset: Dataset) -> None:
    """Say in one sentence what of a data set `compare` cannot serve yet; listed is enough, the files need no check."""
    more = "`unifocal describe` shows what is in it."
    if dataset.dimension == 3:
        raise LabError(
            f"expected pictures; {dataset.name} holds volumes ({dataset.layout}), and compare cannot train on volumes "
            f"yet. {more}"
        )
    if len(dataset.sequences) > 1:
        raise LabError(
            f"expected one picture for each case; {dataset.name} has {len(dataset.sequences)} "
            f"({', '.join(dataset.sequences)}), and compare cannot train on several yet. {more}"
        )
    if dataset.values and IGNORE in dataset.values.values():
        raise LabError(
            f"expected a truth for every pixel; {dataset.name} has a label for pixels to ignore, and compare cannot "
            f"leave pixels out yet. {more}"
        )
