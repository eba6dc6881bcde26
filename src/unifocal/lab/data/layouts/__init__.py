"""The layouts that the lab knows, by name. A new one is a module with a `LAYOUT`, and its name in the list below."""

from unifocal.lab.data.layouts import (
    a_fl,
    brats,
    bus2017,
    busi,
    decathlon,
    kits19,
    ljubljana,
    nnunet,
    picai,
    plain,
    polyps,
    retina,
)
from unifocal.lab.data.layouts.base import Found, Layout

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        busi.LAYOUT,
        bus2017.LAYOUT,
        polyps.LAYOUT,
        retina.LAYOUT,
        brats.BRATS18,
        brats.BRATS20,
        kits19.LAYOUT,
        picai.LAYOUT,
        a_fl.LAYOUT,
        ljubljana.LAYOUT,
        decathlon.LAYOUT,
        nnunet.LAYOUT,
        plain.LAYOUT,
    )
}

__all__ = ["LAYOUTS", "Found", "Layout"]
