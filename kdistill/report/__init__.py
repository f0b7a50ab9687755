"""Reports on finished runs: measurements, comparisons, pictures and the model card."""
