"""How a run's numbers are written."""

import numpy as np


def percent(share, digits=2):
    """A share in percent, '70.12'; a dash where there is none."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f}"


def points(share):
    """A share as '70.1 %', its parts kept on one line."""
    return f"{percent(share, 1)}\u00a0%"


def duration(seconds):
    """'0.3 s', '41 s', '2.4 min', '1.2 h', its parts kept on one line."""
    size, unit = (1, "s") if seconds < 59.5 else (60, "min") if seconds < 3570 else (3600, "h")
    value = seconds / size
    return f"{value:.{0 if value >= 9.95 else 1}f}\u00a0{unit}"


def format_table(rows):
    """Rows of texts as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(
        cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]) for row in rows)
