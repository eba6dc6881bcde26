"""A labelled volume as seen from outside: parallel rays, the first voxel that is hit, light from the upper left."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SIDE = 120  # px, and rays along each side
AZIMUTH, ELEVATION = np.deg2rad(35), np.deg2rad(20)
LIGHT = np.array([-0.5, -0.45, -0.74])  # towards the light: up, left, out of the picture
Mask = NDArray[np.uint8]


def surface(mask: Mask, box: tuple[slice, ...], spacing: Sequence[float], colours: Sequence[str]) -> str:
    """A PNG as a data address: the classes of `mask` within `box`, each in its colour; transparent elsewhere."""
    depth = np.full((SIDE, SIDE), np.inf)
    picture = np.zeros((SIDE, SIDE, 4), np.uint8)
    for index, colour in enumerate(colours, start=1):
        part = mask[box] == index
        if not part.any():
            continue
        mine = _depth(part, spacing)
        nearer = mine < depth
        shade = _shade(mine)[nearer, None]
        rgb = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
        picture[nearer, :3] = np.clip(rgb * shade, 0, 255)
        picture[nearer, 3] = 255
        depth = np.minimum(depth, mine)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def bounding_box(masks: Sequence[Mask], margin: int = 2) -> tuple[slice, ...] | None:
    """The part of the grid that holds all that is marked; None if nothing is."""
    marked = np.any([mask > 0 for mask in masks], axis=0)
    if not marked.any():
        return None
    found = ndimage.find_objects(marked.astype(np.uint8))[0]
    return tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, length in zip(found, marked.shape, strict=True)
    )


def _depth(part: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """How far each ray goes before it meets the part; infinite where it does not. (rows, columns)"""
    shape, steps = np.array(part.shape), np.array(spacing, float)
    turn = _rotation()
    extent = np.abs(turn.T) @ (shape * steps)  # of the box as the picture sees it: depth, down, right, in mm
    step = float(extent[1:].max()) / (SIDE - 4)  # mm between rays
    size = (int(np.ceil(extent[0] / step)) + 4, SIDE, SIDE)
    matrix = (turn * step) / steps[:, None]
    offset = (shape - 1) / 2 - matrix @ ((np.array(size) - 1) / 2)
    soft = ndimage.affine_transform(part.astype(np.float32), matrix, offset, size, order=1)
    soft = ndimage.gaussian_filter(soft, 0.8)
    inside = soft > 0.4
    first = inside.argmax(0)
    rows, columns = np.indices(first.shape)
    here, before = soft[first, rows, columns], soft[np.maximum(first - 1, 0), rows, columns]
    share = np.where(here > before, (here - 0.4) / np.maximum(here - before, 1e-6), 0)
    depth: NDArray[np.float64] = np.where(inside.any(0), first - np.clip(share, 0, 1), np.inf)
    return depth


def _rotation() -> NDArray[np.float64]:
    """Columns: where depth, down and right of the picture point in the volume."""
    right = np.array([np.cos(AZIMUTH), np.sin(AZIMUTH), 0])
    level = np.array([-np.sin(AZIMUTH), np.cos(AZIMUTH), 0])
    depth = np.cos(ELEVATION) * level + np.array([0, 0, -np.sin(ELEVATION)])
    down = np.cross(depth, right)
    return np.stack([depth, down, right], axis=1)


def _shade(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """How bright the surface is, by its slope."""
    filled = np.where(np.isfinite(depth), depth, np.nan)
    edge = np.nanmax(filled) if np.isfinite(filled).any() else 0.0
    smooth = ndimage.gaussian_filter(np.where(np.isnan(filled), edge, filled), 0.9)
    down, right = np.gradient(smooth)
    normal = np.stack([-np.ones_like(down), down, right])
    normal /= np.linalg.norm(normal, axis=0)
    light = LIGHT[[2, 1, 0]] / np.linalg.norm(LIGHT)
    lit: NDArray[np.float64] = 0.38 + 0.72 * np.clip(np.einsum("n,nij->ij", light, normal), 0, None)
    return lit
