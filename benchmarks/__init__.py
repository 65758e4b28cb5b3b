"""Measured comparisons; RESULTS.md says what came out and with which command."""
