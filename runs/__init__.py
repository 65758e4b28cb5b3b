"""What a run leaves in its folder, and what is made of it: log, page, comparisons, sweeps."""
