"""The file formats of weights, read into NumPy arrays."""
