"""Tractable models that are learned from the images, one file each."""
