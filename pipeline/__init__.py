"""The stages of a run and what it keeps: where config, data and models meet."""
