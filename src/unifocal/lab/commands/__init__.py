"""The commands of `unifocal`, a module each; `cli` registers them, and `options` has what they share.

A module imports nothing heavy before its command runs.
"""
