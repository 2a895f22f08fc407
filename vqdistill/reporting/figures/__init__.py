"""Figures: pure functions from tables (and arrays of pictures) to matplotlib figures."""
