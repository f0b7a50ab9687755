"""Training: arguments, the loop, the optimiser, evaluation, and the files of a run."""
