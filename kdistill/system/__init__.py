"""Threads, memory, files, and how progress and tables are shown: the machine, seen from Python."""
