"""What the tests over cases and over folds warrant together.

A paper that says "loss A is better than loss B" means new cases and new trainings. The test over cases answers for
the first, the test over folds for the second; only where both reject is the sentence warranted. As both must
reject, the rate of false positives is at most that of either.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from unifocal.lab.statistics.pairwise import Pairwise
from unifocal.lab.statistics.retraining import Retraining

LOSSES_DIFFER = "the losses differ"
NETWORKS_DIFFER = "these networks differ"
NOT_SHOWN = "no difference shown"
NOT_TESTED = "not tested"
MEANING = {
    LOSSES_DIFFER: "on new cases, and by the folds also after new trainings",
    NETWORKS_DIFFER: "on new cases; other trainings of the same losses may turn out otherwise",
    NOT_SHOWN: "which does not show that the two are equal: see the smallest difference that could have been seen",
    NOT_TESTED: "no value from both",
}


@dataclass(frozen=True)
class Verdicts:
    """One row per pair: `loss`, `other`, `better`, `p_cases`, `p_folds` (both by Holm), `verdict` (see `MEANING`)."""

    alpha: float
    rows: pd.DataFrame
    reasons: tuple[str, ...]


def verdicts(cases: Pairwise, folds: Retraining, alpha: float = 0.05) -> Verdicts:
    """Join the two tests of the same scores."""
    rows = cases.rows[["loss", "other", "better"]].copy()
    rows["p_cases"], rows["p_folds"] = cases.rows["p_holm"].to_numpy(), folds.rows["p_holm"].to_numpy()
    # Folds must point the way of the cases: means and ranks need not.
    agree = np.sign(folds.rows["difference"]) == np.sign(cases.rows["difference"])
    agree &= cases.rows["effect"] * cases.rows["standardised"] > 0
    over_cases, over_folds = rows["p_cases"] <= alpha, (rows["p_folds"] <= alpha) & agree
    rows["verdict"] = np.select(
        [rows["p_cases"].isna(), over_cases & over_folds, over_cases],
        [NOT_TESTED, LOSSES_DIFFER, NETWORKS_DIFFER],
        NOT_SHOWN,
    )
    rows.loc[rows["verdict"].isin([NOT_SHOWN, NOT_TESTED]), "better"] = ""
    return Verdicts(alpha, rows, tuple(dict.fromkeys([*cases.reasons, *folds.reasons])))
