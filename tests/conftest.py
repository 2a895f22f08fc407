"""One thread for all tests: they share their machine, and tiny tensors gain nothing from more.

Numbers too small for full precision are zeros, as in all steps.
"""

import torch

torch.set_flush_denormal(True)
torch.set_num_threads(1)
