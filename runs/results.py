"""Writes what is said of the test images: result.txt, and result.csv beside it."""

import csv
import io

import numpy as np

from system.files import write_atomically


def write_results(output, table_path, names, trained, predictions, scores):
    """Write both, the table first.

    Args:
        output: of the lines 'image label label …', the likeliest first, as the data number them.
        table_path: of `table`.
        names: list (N) of the images.
        trained: `Trained`. predictions: `Predictions`. scores: array (N,), `base_score`.
    """
    lines = [" ".join([name, *map(str, labels)]) + "\n"
             for name, labels in zip(names, trained.numbers[predictions.labels])]
    write_atomically(table_path, table(names, trained.classes, predictions, scores))
    write_atomically(output, "".join(lines).encode())


def table(names, classes, predictions, scores):
    """result.csv: a line an image, UTF-8 bytes; without new classes there is no base score."""
    places = range(1, predictions.labels.shape[1] + 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *(f"name_{i}" for i in places),
                     *(f"probability_{i}" for i in places), "base_score"])
    for name, labels, shares, score in zip(names, predictions.labels, predictions.probabilities,
                                           scores):
        writer.writerow([name, *(classes[label].name for label in labels),
                         *(f"{share:.4f}" for share in shares),
                         f"{score:.4f}" if np.isfinite(score) else ""])
    return text.getvalue().encode()
