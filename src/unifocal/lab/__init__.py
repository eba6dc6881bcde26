"""The lab: compare losses on your images. Needs the extra `unifocal[lab]`; docs/lab.md is the guide.

settings, choices, configuration, protocols    what is asked for
data         a folder on disk -> cases, checked as a whole
preparation  cases -> what a network sees, and predictions back to the original grid
networks     names -> networks
batches, patches, augmentation, inference    what a network is trained on, and what it says of an image
training     one run, from its first epoch to its tables
experiment, division, runs    a data set with its folds in an output folder, and the runs on it
grid, cells, claims    who does which run, and where
comparison, tuning, planning, prediction, evaluation    what the commands do
metrics, statistics, results, report, pictures    what came of it
plots        figures of the losses themselves
commands, cli    the command line

The command `unifocal compare` in Python:

    from pathlib import Path
    from unifocal.lab.comparison import compare
    from unifocal.lab.data.reading import read_dataset
    from unifocal.lab.settings import make_settings

    settings = make_settings(losses="dice,tversky,unified-focal:gamma=0.2", folds=5, epochs=20)
    comparison = compare([read_dataset("DATA")], settings, Path("runs/first"))
    comparison.cases  # one row for each data set, network, loss, fold, seed, case, class and metric
"""
