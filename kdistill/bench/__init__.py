"""Speed of a model on this machine, compared with other runtimes."""
