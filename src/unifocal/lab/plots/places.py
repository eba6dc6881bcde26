"""Where the losses are in the figure of the family, and which way an arrow goes if the straight one is taken.

Three columns, as in the paper's figure: entropy, both, region. Rows go from the general to the special.
"""

from typing import NamedTuple

PLACES: dict[str, tuple[int, int]] = {  # column, row
    "generalised-focal": (1, 0),
    "asymmetric-focal": (0, 1),
    "unified-focal": (1, 1),
    "asymmetric-focal-tversky": (2, 1),
    "symmetric-focal": (0, 2),
    "symmetric-unified-focal": (1, 2),
    "symmetric-focal-tversky": (2, 2),
    "focal": (0, 3),
    "hybrid-focal": (1, 3),
    "focal-tversky": (2, 3),
    "dice-focal": (1, 4),
    "tversky": (2, 4),
    "dice-ce": (1, 5),
    "asymmetric-similarity": (2, 5),
    "cross-entropy": (0, 6),
    "combo": (1, 6),
    "dice": (2, 6),
}


class Way(NamedTuple):
    """How an arrow goes.

    Attributes:
        shift: of a straight one, to its side, in inches; of one by a lane, down from the middle of the boxes.
        lane: x in inches of the vertical line by which it passes other boxes; None: straight.
        at: where on that line its label is, from its start to its end.
    """

    shift: float = 0.0
    lane: float | None = None
    at: float = 0.5


# By its ends and whether it holds; any other arrow is straight.
WAYS: dict[tuple[str, str, bool], Way] = {
    ("unified-focal", "asymmetric-focal-tversky", True): Way(shift=0.06),
    ("unified-focal", "asymmetric-focal-tversky", False): Way(shift=-0.06),
    ("hybrid-focal", "symmetric-unified-focal", True): Way(shift=-0.2),
    ("symmetric-unified-focal", "hybrid-focal", False): Way(shift=0.22),
    ("focal-tversky", "tversky", True): Way(shift=-0.22),
    ("focal-tversky", "tversky", False): Way(shift=0.16),
    ("combo", "cross-entropy", True): Way(shift=-0.06),
    ("combo", "dice", True): Way(shift=-0.06),
    ("symmetric-focal", "cross-entropy", False): Way(lane=0.08),
    ("tversky", "dice", True): Way(lane=3.42),
    ("symmetric-unified-focal", "combo", True): Way(shift=0.09, lane=1.28, at=0.62),
    ("symmetric-unified-focal", "dice-focal", False): Way(shift=0.09, lane=2.22, at=0.74),
}
