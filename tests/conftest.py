"""One thread for all tests: they share their machine, and tiny tensors gain nothing from more."""

import torch

torch.set_num_threads(1)
