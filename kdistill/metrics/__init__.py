"""Figures of an evaluation, computed from logits and labels."""
