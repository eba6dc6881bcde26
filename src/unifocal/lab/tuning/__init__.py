"""What `unifocal tune` does: the papers' coordinate sweep, or a free search over parameters, losses, or both.

sweep           one parameter after the other, each fixed at its best before the next
recommendation  what came of that, and whether the data can tell it from other values; on screen and in `summary.md`
space           what a search may try: losses with ranges of their parameters
usual           the ranges of each loss where none are given
search          plans the trials of every fold, has the grid do them, judges them
trials          one trial, an ordinary run whose loss is chosen when it begins
study           Optuna's part: what to try next, and what is not worth going on with
judgement       what came of a search: winners, the gain on untouched cases, the loss to recommend
confirming      the comparison that would confirm what was found
words           the same for people, on screen and in `search.md`

Nothing of Optuna is imported outside `study`.
"""
