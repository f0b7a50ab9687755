"""The machine seen from Python: threads, memory, files, progress on a terminal or in Jupyter."""
