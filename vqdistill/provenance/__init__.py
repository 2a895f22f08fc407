"""Where results come from, and how they are had back: records, loading, reproducing."""
