"""Data sets: from a folder on disk to cases, checked as a whole, and to arrays.

layouts/     one module for each way to store a data set; lists files, opens none
reading      a folder -> the layout that fits -> `cases.Dataset`, with groups and splits
checks       every file of it looked at, every problem told at once
images, volumes, masks    files -> arrays
describe, duplicates, folds    what is in it, and who is tested when
"""
