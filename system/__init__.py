"""The ground: this machine, its files and processes; knows nothing of CLIP."""
