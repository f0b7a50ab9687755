"""Checks of a run before it is made."""
