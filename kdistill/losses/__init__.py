"""Losses on logits, computed in the C core."""
