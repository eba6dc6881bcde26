"""The commands of `unifocal`, a module each."""
