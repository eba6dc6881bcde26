"""Statistics of a comparison: pure functions of the tidy results table. No files, no printing, no global random state.

table       the tidy table -> `Scores`: one metric of one class, loss by seed by case; what is missing
datasets    the `Scores` of several data sets -> `Scores` with data sets as cases
intervals   the mean of a loss: t-interval over folds, BCa bootstrap over cases, spread between seeds
pairwise    two losses over cases: signed-rank (or rank-sum) tests, Holm's correction, effect sizes
retraining  two losses over folds: the corrected resampled t-test
verdict     what the two kinds of test warrant together
ranks       ranks by mean, median, mean rank and test;  stability  the same under bootstraps
friedman    all losses at once, and the critical-difference diagram
power       the smallest difference that the study could have seen

What is independent of what. A case is tested once for each loss and seed, so losses are paired over cases. Seeds
repeat the measurement of a case and are averaged first; they are never further cases. Cases of one group (a patient,
near-duplicates) resemble each other: bootstraps draw whole groups, and tests use the mean of each group. Cases of
one fold share a trained network: a test over cases therefore speaks of these networks on new cases, and only the
test over folds says whether new trainings would differ. Cases of different data sets are never pooled: there the
data sets are the units.

Every result carries `reasons`: short sentences that say why a conclusion is not warranted.
"""
