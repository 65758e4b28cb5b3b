"""The generated picture world of the sample set, and the training of its small CLIP."""
