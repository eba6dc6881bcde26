"""The ranges in which a search looks for each parameter of a loss where none are given.

Every range holds the default, and stays within what the loss allows. delta, gamma and lam of the Unified Focal family
are those of Yeung et al., arXiv 2102.04525v2, Table 2, but for gamma = 0, where the loss has no focusing, and for the
outermost deltas, where one kind of error costs next to nothing. gamma of focal terms is that of Lin et al., ICCV 2017,
who tried 0 to 5. The rest is ours; factors and powers, which have 1 as their middle, are on a logarithmic scale.
"""

DELTA, GAMMA, LAM = "0.2..0.9", "0.05..0.9", "0..1"
FOCUS = "0..5"
POWER = "0.33..3:log"
WEIGHT = "0.1..10:log"

USUAL: dict[str, dict[str, str]] = {
    "cross-entropy": {},
    "focal": {"gamma": FOCUS},
    "dice": {},
    "jaccard": {},
    "tversky": {"delta": DELTA},
    "asymmetric-similarity": {"beta": "0.5..3:log"},
    "focal-tversky": {"delta": DELTA, "exponent": POWER},
    "cosine-tversky": {"delta": DELTA, "gamma": POWER},
    "combo": {"alpha": "0.1..0.9", "beta": "0.1..0.9"},
    "dice-ce": {"ce_weight": WEIGHT},
    "dice-focal": {"focal_weight": WEIGHT, "gamma": FOCUS},
    "mixed-focal": {"lam": LAM, "gamma": FOCUS, "delta": DELTA, "exponent": POWER},
    "hybrid-focal": {"lam": LAM, "gamma": FOCUS, "delta": DELTA, "exponent": POWER},
    "symmetric-focal": {"delta": DELTA, "gamma": FOCUS},
    "asymmetric-focal": {"delta": DELTA, "gamma": FOCUS},
    "symmetric-focal-tversky": {"delta": DELTA, "gamma": GAMMA},
    "asymmetric-focal-tversky": {"delta": DELTA, "gamma": GAMMA},
    "symmetric-unified-focal": {"delta": DELTA, "gamma": GAMMA, "lam": LAM},
    "unified-focal": {"delta": DELTA, "gamma": GAMMA, "lam": LAM},
    "generalised-focal": {"delta": DELTA, "gamma": GAMMA, "lam": LAM},
    "adaptive-focal": {"size": "0.1..10:log", "smoothness": "0.1..10:log", "gamma_0": "0..2"},
}
