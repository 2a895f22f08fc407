"""What is read in the end: tables, verdicts on the paper's statements, and figures.

Pure functions from tables (pandas) to tables and matplotlib figures. Nothing here imports torch.
"""
