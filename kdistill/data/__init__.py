"""Rows: read from any source, their columns understood, tokenised, ordered and packed."""
