"""The networks that are trained: the VQ-VAE and its prior, and the digit classifier."""
