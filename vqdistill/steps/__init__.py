"""One entry point for each rule of the workflow: read files, call the package, write files."""

import gc
import sys

if sys.argv[:1] == ["-m"]:  # as a program: Python is looking for the module that it will run
    gc.disable()  # importing PyTorch makes half a million objects that stay; `common.run` goes on
