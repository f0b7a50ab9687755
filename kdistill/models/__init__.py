"""A model: its configuration, weights, forward and backward pass, and checkpoints."""
