"""The commands of `unifocal` that have a module of their own; `cli` registers them."""
