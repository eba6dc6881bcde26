"""One run, from its first epoch to its tables: `execute.execute`.

segmentation    network, loss, optimiser and schedule, as Lightning wants them
overlap         the Dice coefficient over the voxels of a validation pass
history         one row for each epoch, and what follows from it: the best epoch, when to stop
checkpoints     whole or absent, and written while training goes on
fit             Lightning's trainer, and interrupts that stay interrupts
scoring         predictions and metrics of every case
execute         these in order, going on wherever the run was left
"""
