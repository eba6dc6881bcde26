"""Anybody's own data: a folder of images and one of masks, pictures or volumes, matched by name.

Masks are class indices if all values of all masks are whole numbers within 0..15 and more than one positive value
occurs in the set; the classes are then named "class 1", "class 2", ... Otherwise they are binary, in the way of
`masks.binarise`; a picture with a few other values (such as 0, 85, 170, 255), or a volume with several, is neither and
refused, and so are masks of both kinds in one set (`kinds.mixed_labels`).
"""

import re
from pathlib import Path

from unifocal.lab.data.files import files_in, is_volume, subfolder
from unifocal.lab.data.layouts.base import Found, Layout, pair
from unifocal.lab.data.problems import short

IMAGES = ("images", "image")
MASKS = ("masks", "mask", "labels", "label")
MASK = re.compile(r"(?P<stem>.+?)(_(mask|segmentation|seg|label)(_\d+)?)?", re.IGNORECASE)


def is_here(folder: Path) -> bool:
    return subfolder(folder, IMAGES) is not None and subfolder(folder, MASKS) is not None


def read(folder: Path) -> Found:
    images, masks = (files_in(part) if (part := subfolder(folder, names)) else [] for names in (IMAGES, MASKS))
    cases, problems = pair(images, masks, MASK)
    volumes = [path for path in (*images, *masks) if is_volume(path)]
    if volumes and len(volumes) < len(images) + len(masks):
        picture = next(path for path in (*images, *masks) if not is_volume(path))
        problems.append(f"pictures and volumes in one set: {short(picture)} and {short(volumes[0])}")
    return Found(cases, problems, dimension=3 if volumes else 2, classes=None)


LAYOUT = Layout(
    "plain",
    "images/ (image/) and masks/ (mask/, labels/, label/), 2D or 3D; a.png and a.png, a_mask.png or a_mask_1.png, ...",
    is_here,
    read,
)
