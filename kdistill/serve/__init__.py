"""A model behind HTTP: requests are read, gathered into packed batches, and answered."""
