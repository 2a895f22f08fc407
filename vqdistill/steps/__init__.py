"""One entry point for each rule of the workflow: read files, call the package, write files."""

import gc
import os
import sys

os.environ["MPLBACKEND"] = "agg"  # a notebook that starts steps names one that may not be here

if sys.argv[:1] == ["-m"]:  # as a program: Python is looking for the module that it will run
    gc.disable()  # all that PyTorch's import makes stays; `job.run` turns it on again
