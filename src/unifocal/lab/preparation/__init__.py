"""From files to what the network sees, and back.

intensity, resampling, grids    clip and normalise; finer and coarser grids; grids that differ
placement                       how the grid of a file became the training grid, and predictions the way back
sequences, steps                the images of a case, and the order of the steps
contents, foreground, cache     prepared once, kept on disk, read by memory mapping
predictions                     class indices as files in the format of the image
"""

from unifocal.lab.preparation.cache import PreparedSet, open_prepared, prepare_all
from unifocal.lab.preparation.contents import data_fingerprint, file_digests
from unifocal.lab.preparation.placement import Placement, to_original
from unifocal.lab.preparation.predictions import find_prediction, read_prediction, write_prediction
from unifocal.lab.preparation.steps import Prepared, prepare_case, prepare_image

__all__ = [
    "Placement",
    "Prepared",
    "PreparedSet",
    "data_fingerprint",
    "file_digests",
    "find_prediction",
    "open_prepared",
    "prepare_all",
    "prepare_case",
    "prepare_image",
    "read_prediction",
    "to_original",
    "write_prediction",
]
