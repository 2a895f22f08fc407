"""The names of all tables and figures."""

GATHERED = ("density", "inpainting", "costs", "teacher", "bounds", "codebook")
MADE = ("density_summary", "inpainting_summary", "model_sizes", "timings", "history", "classifier")
MADE += ("claims", "thresholds", "data_dictionary")
TABLES = (*GATHERED, *MADE)

MASKS = ("left", "right", "top", "bottom", "centre")
FIGURES = ("figure1", "figure2", "samples", "weights", "inpainting_scores", "costs", "training")
FIGURES += ("codebook", *(f"inpainting_{mask}" for mask in MASKS))
