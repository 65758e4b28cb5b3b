"""What a run shows: log, page, comparisons, sweeps, metrics, the entry to hand in."""
