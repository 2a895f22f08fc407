"""What all tests share: one thread, since tiny tensors gain nothing from more; and SIGINT, which a
shell's background jobs ignore, and with them the processes that tests interrupt."""

import signal

import torch

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
