"""The papers' methods written plainly in PyTorch, for benchmarks/run.py to measure against.

Models are open_clip's, the rest is written from the papers with the settings that their authors
publish. Runs in an environment of its own; benchmarks/README.md sets it up.
"""
