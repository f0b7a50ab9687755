"""Speed of a model on this machine, beside other runtimes."""
