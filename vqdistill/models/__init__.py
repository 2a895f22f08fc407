"""The models that are trained: the VQ-VAE with its prior, the baselines, the digit classifier."""
