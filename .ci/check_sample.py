"""Fails unless result.txt beats zero-shot CLIP on the sample set's test images.

    python .ci/check_sample.py RESULT SAMPLE_FOLDER REPORT [EXPECTED]

REPORT is what `test.py --ablate` printed. The result's own accuracies, among all classes, are
counted here from the files alone. EXPECTED is an earlier result of the same weights: whatever was
made faster since, at most 1 % of the likeliest labels may differ, as on another processor.
"""

import os
import re
import sys


def main():
    result, folder, report, *expected = sys.argv[1:]
    labels = dict(line.split() for line in lines(os.path.join(folder, "labels.txt")))
    base = {line.split()[1] for line in lines(os.path.join(folder, "train.txt"))}
    rows = [line.split() for line in lines(result)]
    if sorted(row[0] for row in rows) != sorted(labels):
        sys.exit(f"{result} does not name each test image once")
    if any(len(set(row[1:])) != 5 or len(row) != 6 for row in rows):
        sys.exit(f"{result} has a row without five different labels")
    for path in expected:
        before = {line.split()[0]: line.split()[1] for line in lines(path)}
        unlike = sum(before[name] != first for name, first, *_ in rows) / len(rows)
        print(f"{100 * unlike:.2f} % of the likeliest labels differ from {path}")
        if unlike > 0.01:
            sys.exit(f"the same weights give other labels than in {path}")
    right = {True: [], False: []}
    for name, first, *_ in rows:
        right[labels[name] in base].append(first == labels[name])
    ours = [100 * sum(right[side]) / len(right[side]) for side in (True, False)]
    ours.append(2 * ours[0] * ours[1] / max(sum(ours), 1e-9))
    row = next(line for line in lines(report) if re.match(r"zero-shot\s", line))
    zero_shot = [float(number) for number in row.split()[-3:]]
    for name, a, b in zip(("base", "new", "harmonic mean"), ours, zero_shot):
        print(f"{name} among all classes: {a:.2f} %, zero-shot {b:.2f} %")
    if ours[0] <= zero_shot[0] or ours[2] <= zero_shot[2]:
        sys.exit("the result does not beat zero-shot CLIP")


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


if __name__ == "__main__":
    main()
