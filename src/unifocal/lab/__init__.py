"""The lab: compare losses on a folder of images. Needs the extra `unifocal[lab]`.

The command `unifocal compare` in Python:

    from pathlib import Path
    from unifocal.lab.comparison import compare
    from unifocal.lab.data.reading import read_dataset
    from unifocal.lab.settings import make_settings, parse_losses

    settings = make_settings(losses=parse_losses("dice,tversky,unified-focal:gamma=0.2"), folds=5, epochs=20)
    comparison = compare(read_dataset("DATA"), settings, Path("runs/first"))
    comparison.table  # one row for each loss, fold, seed, case, class and metric
"""
