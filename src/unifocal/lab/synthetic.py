"""A made-up set of ultrasound-like lesions, for trying the lab without data: drawn anatomy, simulated echoes.

Each image is a scene in decibels (skin, fat with septa, gland, muscle, lesions, bright reflectors and what lies in
their shadow), sounded as a scanner would: random scatterers, a point-spread function that widens with depth, the
envelope of the sum (hence Rayleigh speckle), attenuation, logarithmic compression. About 5 % of the pixels are
lesion, some lesions cover less than 0.5 % of their image, one patient in fifteen has none. Fat lobules and shadows
are as dark as lesions and are not lesions. A case depends on the seed, its number and the size alone.
"""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, special

from unifocal.lab.errors import LabError

MARKER = "synthetic.json"
FINER = 2  # the echoes are simulated on a grid this much finer than the image
GOLDEN = 0.6180339887498949

Array = NDArray[np.float64]


def write_synthetic(folder: str | Path, cases: int = 60, seed: int = 0, size: int = 128) -> Path:
    """Write the set in the plain layout, with a groups file naming the patient of every image; return the folder.

    Some patients have two images. The same arguments give the same bytes. A folder that an earlier call made is
    replaced; any other that is not empty is refused.
    """
    folder = Path(folder).expanduser().resolve()
    if cases < 1 or size < 32 or seed < 0:
        raise LabError(f"expected cases >= 1, size >= 32 and seed >= 0; got cases={cases}, size={size}, seed={seed}.")
    _make_room(folder)
    (folder / MARKER).write_text(json.dumps({"cases": cases, "seed": seed, "size": size}) + "\n")
    rows = []
    for number in range(cases):
        image, mask = draw_case(number, seed, size)
        name = f"case_{number + 1:03d}.png"
        for part, pixels in (("images", image), ("masks", 255 * mask)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / part / name)
        rows.append((f"images/{name}", f"patient_{_patient_of(number) + 1:03d}"))
    with (folder / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("image", "patient"), *rows])
    return folder


def draw_case(number: int, seed: int = 0, size: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return image and mask (1 is lesion) of one case, both (size, size)."""
    patient = _patient_of(number)
    body = np.random.default_rng([seed, 0, patient])  # the same for every image of the patient
    view = np.random.default_rng([seed, 1, number])
    grid = _Grid.of(size * FINER)
    scene = _draw_tissue(grid, body, view)
    mask = np.zeros_like(grid.x, bool)
    darkening = np.zeros_like(grid.x)
    for share in _lesion_shares(patient, seed, body):
        mask |= _add_lesion(scene, darkening, grid, share, body, view)
    _add_shadows(scene, darkening, grid, mask, view)
    image = _sound(scene, darkening, grid, view)
    blocks = mask.reshape(size, FINER, size, FINER).mean((1, 3))
    return image, (blocks >= 0.5).astype(np.uint8)


@dataclass(frozen=True)
class _Grid:
    """Coordinates from 0 to 1: x to the right, y the depth."""

    n: int
    x: Array
    y: Array

    @classmethod
    def of(cls, n: int) -> "_Grid":
        ticks = (np.arange(n) + 0.5) / n
        x, y = np.meshgrid(ticks, ticks)
        return cls(n, x, y)


def _patient_of(number: int) -> int:
    """Of every six images the first two are one patient's."""
    block, place = divmod(number, 6)
    return 5 * block + max(0, place - 1)


def _lesion_shares(patient: int, seed: int, body: np.random.Generator) -> list[float]:
    """Return the wanted share of the image for each lesion of a patient.

    Multiples of the golden ratio fill (0, 1) evenly, so that even a small set has empty, tiny and large ones.
    """
    start = np.random.default_rng([seed, 2]).random()
    u = (start + patient * GOLDEN) % 1
    two = body.random() < 0.12
    if u < 1 / 15:
        return []
    share = float(0.0345 * np.exp(1.15 * special.ndtri((u - 1 / 15) * 15 / 14)))
    share = min(max(share, 0.0022), 0.26)
    return [0.6 * share, 0.4 * share] if two and share > 0.02 else [share]


def _wave(grid: _Grid, rng: np.random.Generator, amplitude: float, waves: int = 4) -> Array:
    """Return a smooth random curve over x, of shape (n,)."""
    t = grid.x[0]
    curve = np.zeros_like(t)
    for k in range(1, waves + 1):
        curve += rng.normal() / k * np.sin(np.pi * k * t + rng.uniform(0, 2 * np.pi))
    return np.asarray(amplitude * curve)


def _field(grid: _Grid, rng: np.random.Generator, depth: float, width: float) -> Array:
    """Return smooth noise of unit variance with structures of the given size (shares of the image)."""
    # A Gaussian in frequency: the same blur as in space, but as fast for wide structures as for narrow ones.
    fy, fx = np.fft.fftfreq(grid.n)[:, None] * grid.n, np.fft.rfftfreq(grid.n) * grid.n
    blur = np.exp(-2 * np.pi**2 * ((depth * fy) ** 2 + (width * fx) ** 2))
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=grid.x.shape)) * blur, grid.x.shape)
    return np.asarray((field - field.mean()) / field.std())


def _draw_tissue(grid: _Grid, body: np.random.Generator, view: np.random.Generator) -> Array:
    """Return the echo strength of healthy tissue in decibels."""
    tilt = view.normal(0, 0.05) * (grid.x[0] - 0.5)
    skin = 0.025 + 0.015 * body.random() + 0.3 * tilt
    fat = 0.14 + 0.16 * body.random() + _wave(grid, body, 0.03) + tilt
    gland = 0.58 + 0.22 * body.random() + _wave(grid, body, 0.03) + tilt
    muscle = gland + 0.12 + 0.1 * body.random() + _wave(grid, body, 0.01)
    fat_level, gland_level, muscle_level = body.normal((-15, -4, -10), (2, 1.5, 2))

    def above(border: Array, softness: float = 0.006) -> Array:
        return np.asarray(special.expit((border - grid.y) / softness))

    # Fat is dark with fine bright septa: the ridges of a smooth field.
    ridges = np.exp(-((_field(grid, view, 0.04, 0.09) / 0.2) ** 2))
    fatty = fat_level + 1.5 * _field(grid, view, 0.03, 0.06) + 9 * ridges
    streaks = _field(grid, view, 0.012, 0.07)
    ligaments = np.exp(-((_field(grid, view, 0.07, 0.1) / 0.09) ** 2))
    glandular = gland_level + 2.2 * streaks + 3.0 * _field(grid, view, 0.05, 0.09) + 5 * ligaments
    muscular = muscle_level + 4.0 * _field(grid, view, 0.007, 0.16)
    deep = muscle_level - 10 + 2.0 * _field(grid, view, 0.03, 0.1)

    scene = deep
    for border, tissue in ((muscle, muscular), (gland, glandular), (fat, fatty)):
        scene = scene + above(border) * (tissue - scene)
    # Dark lobules of fat inside the gland: rounder than streaks, weaker than lesions, without posterior signs.
    for _ in range(int(view.integers(1, 5))):
        cx, cy = view.random(), view.uniform(0.3, 0.7)
        rx = view.uniform(0.04, 0.1)
        inside = special.expit((1 - np.hypot((grid.x - cx) / rx, (grid.y - cy) / (0.45 * rx))) / 0.15)
        scene = scene + inside * np.minimum(fat_level + 3 - scene, 0) * view.uniform(0.5, 1)
    for border, strength, width in ((fat, 5, 0.006), (gland, 4, 0.005), (muscle, 9, 0.008)):
        broken = special.expit(3 * _field(grid, view, 0.05, 0.12))
        scene = scene + strength * broken * np.exp(-(((grid.y - border) / width) ** 2))
    in_skin = above(skin, 0.004)
    return np.asarray(scene + in_skin * (2 - scene))


def _add_lesion(
    scene: Array,
    darkening: Array,
    grid: _Grid,
    share: float,
    body: np.random.Generator,
    view: np.random.Generator,
) -> NDArray[np.bool_]:
    """Draw one lesion into scene and darkening (both in decibels, changed in place); return where it is."""
    kind = body.choice(["cyst", "benign", "malignant"], p=[0.2, 0.4, 0.4])
    flatness = body.uniform(0.55, 0.85) if kind != "malignant" else body.uniform(0.8, 1.25)
    share *= view.uniform(0.85, 1.15)
    across = np.sqrt(share / np.pi / flatness)
    down = flatness * across
    cx = view.uniform(min(0.9 * across, 0.5), max(1 - 0.9 * across, 0.5))
    cy = body.uniform(max(0.2, 0.08 + down), max(0.24, min(0.72, 0.96 - down)))
    x, y = grid.x - cx, grid.y - cy
    turn = body.uniform(-0.35, 0.35)
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(y / flatness, x)
    border = _border(angle, kind, body)
    radius = np.hypot(x, y / flatness) / (across * border)
    inside = special.expit((1 - radius) * across / (0.005 if kind != "malignant" else 0.014))

    drop = {"cyst": body.uniform(16, 24), "benign": body.uniform(7, 14), "malignant": body.uniform(8, 17)}[kind]
    level = -5 - drop
    texture = 0.8 if kind == "cyst" else 1.8
    interior = level + texture * _field(grid, view, 0.02, 0.03)
    scene += inside * (interior - scene)
    if kind == "malignant":
        halo = np.exp(-(((radius - 1.15) / 0.16) ** 2))
        scene += 3.5 * halo * special.expit(2 * _field(grid, view, 0.03, 0.03))
        if body.random() < 0.5:
            _add_specks(scene, inside, view)
    else:
        # The wall facing the beam reflects: bright above and below, thin at the sides.
        wall = np.exp(-(((radius - 1.02) * across / 0.006) ** 2))
        scene += 6 * wall * (np.abs(np.sin(angle)) ** 2)

    behind = special.expit((grid.y - cy) / (0.3 * down))
    fading = np.exp(-np.maximum(grid.y - cy - down, 0) / 0.35)
    beam = np.exp(-((np.abs(x) / (0.85 * across)) ** 4)) * behind * fading * (1 - inside)
    strength = {"cyst": body.uniform(5, 9), "benign": body.uniform(0, 4), "malignant": -body.uniform(0, 12)}[kind]
    darkening -= strength * beam
    # Refraction at the flanks throws two thin shadows.
    if kind != "malignant":
        for side in (-1, 1):
            flank = np.exp(-(((x - side * 0.97 * across) / (0.06 * across + 0.004)) ** 2))
            darkening += 4 * flank * behind * fading * (1 - inside)
    return np.asarray(radius <= 1)


def _border(angle: Array, kind: str, body: np.random.Generator) -> Array:
    """Return the radius over the angle: smooth lobes, and for malignant lesions points as well; mean square 1."""
    lobes = {"cyst": 0.03, "benign": 0.09, "malignant": 0.12}[kind]
    around = np.linspace(-np.pi, np.pi, 721)
    curve = np.ones_like(around)
    for k in range(2, 12 if kind == "malignant" else 6):
        curve += lobes * body.normal() / k**0.7 * np.cos(k * around + body.uniform(0, 2 * np.pi))
    if kind == "malignant":
        for _ in range(int(body.integers(3, 9))):
            away = np.angle(np.exp(1j * (around - body.uniform(-np.pi, np.pi))))
            curve += body.uniform(0.08, 0.28) * np.exp(-((away / 0.14) ** 2))
    curve = np.maximum(curve, 0.45)
    curve /= np.sqrt((curve[:-1] ** 2).mean())
    return np.asarray(np.interp(angle, around, curve))


def _add_specks(scene: Array, inside: Array, view: np.random.Generator) -> None:
    """Strew microcalcifications: single bright points inside a lesion, too small to throw a shadow."""
    specks = view.random(scene.shape) < 0.004
    scene += 16 * inside * ndimage.gaussian_filter(specks.astype(float), 0.8) * 4


def _add_shadows(
    scene: Array, darkening: Array, grid: _Grid, mask: NDArray[np.bool_], view: np.random.Generator
) -> None:
    """Add bright reflectors and the dark columns below them, and lost contact at the skin: none is a lesion."""
    for _ in range(int(view.integers(0, 3))):
        cx, cy, half = view.random(), view.uniform(0.12, 0.5), view.uniform(0.012, 0.06)
        if mask[:, int(cx * grid.n)].any() and view.random() < 0.7:
            continue
        bend = 0.35 * (grid.x - cx) ** 2 / half
        # The edges blur with depth, as the beam widens.
        spread = 0.006 + 0.15 * half + 0.02 * np.maximum(grid.y - cy, 0)
        column = special.expit((half - np.abs(grid.x - cx)) / spread)
        scene += 9 * column * np.exp(-(((grid.y - cy - bend) / 0.007) ** 2)) * (1 - mask)
        below = special.expit((grid.y - cy - bend - 0.015) / 0.012)
        darkening += view.uniform(6, 16) * column * below * np.exp(-np.maximum(grid.y - cy, 0) / 0.8)
    if view.random() < 0.25:
        edge = view.choice([0.0, 1.0])
        darkening += view.uniform(8, 20) * special.expit((view.uniform(0.02, 0.12) - np.abs(grid.x - edge)) / 0.02)


def _sound(scene: Array, darkening: Array, grid: _Grid, view: np.random.Generator) -> NDArray[np.uint8]:
    """Return the grey image that a scanner makes of the scene."""
    n = grid.n
    loss = view.uniform(4, 13) * grid.y**1.3 + np.abs(_wave(grid, view, 1.0, 3)) + darkening
    # Gaussian scatterers in quadrature; their blurred sum has a Rayleigh envelope, with the echo strength as scale.
    scatterers = view.normal(size=(2, n, n)) * 10 ** (scene / 20)
    depth_blur = 0.005 * n
    near, far = (
        np.hypot(*(ndimage.gaussian_filter(part, (depth_blur, width * n)) * np.sqrt(width) for part in scatterers))
        for width in (0.0055, 0.012)
    )
    envelope = ((1 - grid.y) * near + grid.y * far) * n
    noise = 0.03 * np.hypot(*ndimage.gaussian_filter(view.normal(size=(2, n, n)), (0, 0.8, 0.8)))
    decibels = 20 * np.log10(envelope * 10 ** (-loss / 20) + noise + 1e-6)
    size = n // FINER
    decibels = decibels.reshape(size, FINER, size, FINER).mean((1, 3))
    top = np.quantile(decibels, 0.995) + view.uniform(-2, 3)
    grey = 1 + (decibels - top) / view.uniform(42, 54)
    return np.asarray(255 * grey.clip(0, 1) ** view.uniform(1.0, 1.4) + 0.5, np.uint8)


def _make_room(folder: Path) -> None:
    """Make the folder, or empty one that an earlier call made."""
    if folder.is_file():
        raise LabError(f"expected a folder to write to; {folder} is a file. Choose another place.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise LabError(
                f"expected a new or empty folder; {folder} holds files that were not made here. "
                "Choose another place: nothing is overwritten."
            )
        for part in ("images", "masks"):
            shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
