"""One run, from its first epoch to its tables: `execute.execute`.

segmentation    network, loss, optimiser and schedule, as Lightning wants them
history         one row for each epoch, and what follows from it: the best epoch, when to stop
fit             Lightning's trainer, checkpoints that are whole or absent, interrupts that stay interrupts
scoring         predictions and metrics of every case
execute         these in order, going on wherever the run was left
"""
