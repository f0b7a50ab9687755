"""Trained models made smaller."""
