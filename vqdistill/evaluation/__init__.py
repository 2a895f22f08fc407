"""One evaluation code for every tractable model: density, inpainting, and the teacher's own."""
