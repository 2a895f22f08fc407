"""How models are trained: the loop that all share, and what an epoch is for each kind."""
