"""The names of all tables and figures, and of their captions."""

OF_TEACHERS = ("costs", "teacher", "bounds", "divergence", "codebook")
OF_TEACHERS += ("gain_blocks", "gain_places", "gain_pixels")
GATHERED = ("density", "inpainting", *OF_TEACHERS)
MADE = ("density_summary", "inpainting_summary", "model_sizes", "timings", "history", "classifier")
MADE += ("claims", "thresholds", "data_dictionary")
TABLES = (*GATHERED, *MADE)

MASKS = ("left", "right", "top", "bottom", "centre")
CHARTS = ("figure1", "figure3", "gain", "weights", "inpainting_metrics", "costs", "training")
CHARTS += ("codebook",)
PICTURES = ("figure2", "samples", *(f"inpainting_{mask}" for mask in MASKS))
FIGURES = (*CHARTS, *PICTURES)


def caption(name: str) -> str:
    """The name of the caption of a table or figure, a file of workflow/report."""
    if name.removeprefix("inpainting_") in MASKS:
        return "inpainting_sheet"
    captions = {"figure1": "density", "figure2": "inpainting", "figure3": "circuits"}
    return captions.get(name, name)
