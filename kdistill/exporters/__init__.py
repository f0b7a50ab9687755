"""Models as other programs read them: a format a file, listed in `registry`, written by `export`."""
