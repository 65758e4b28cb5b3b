"""Checks an entry for the challenge and packs it.

    python -m runs.submission [result.txt] [--config CONFIG] [--output result.zip] [key=value …]

An entry has a line 'image label label label label label' for every test image: the five
likeliest labels, all different, each in the class list.
"""

import io
import os
import re
import sys
import zipfile

from configs import load_config
from configs.command_line import Parser
from data.challenge import N_LABELS, challenge_classes
from data.folders import data_path
from data.image_paths import list_images
from pipeline.choice import config_path
from prompts import PromptLibrary
from system.errors import UserError, run_script
from system.files import write_atomically
from system.places import home, require_writable
from system.untrusted import read_lines, shown

FIRST_OF_JANUARY = (2024, 1, 1, 0, 0, 0)  # in the archive, so that it does not tell the time


def main():
    parser = Parser(__doc__.splitlines()[0], prog="python -m runs.submission")
    parser.add_settings("[result.txt]")
    parser.add_argument("--output", type=home, default="result.zip", help="archive to write")
    arguments = parser.read()
    if len(arguments.paths) > 1:
        raise UserError(f"one entry at a time, not {' and '.join(arguments.paths)}")
    require_writable({"--output": os.path.dirname(arguments.output)})
    result = arguments.paths[0] if arguments.paths else "result.txt"
    config = load_config(config_path(arguments.config, arguments.overrides, ("test",)),
                         arguments.overrides)
    data = config.data
    classes = challenge_classes(data, PromptLibrary(config.prompts.dir).domains)
    names = [os.path.basename(path) for path in list_images(data_path(data, "test_dir"))]
    check_entry(result, names, len(classes))
    pack_entry(result, arguments.output)
    print(f"{result} is a valid entry of {len(names)} images; packed into "
          f"{arguments.output}", file=sys.stderr)


def check_entry(path, names, n_classes):
    """Refuse a result file that is no valid entry.

    Args:
        path: the result file.
        names: file names of all test images.
        n_classes: labels must be below it.

    Raises:
        UserError: the first line that is wrong, or the images without a line.
    """
    lines = read_lines(path, "run test.py first")
    wanted, seen = set(names), set()
    n_labels = min(N_LABELS, n_classes)
    for number, line in enumerate(lines, start=1):
        if not line and number == len(lines):
            break  # what follows the last line's end
        where = f"{path}, line {number}"
        # A name may hold spaces, so the labels are counted from the end.
        name, *labels = line.rsplit(" ", n_labels)
        if len(labels) != n_labels or not all(re.fullmatch("[0-9]{1,9}", label)
                                              for label in labels):
            raise UserError(f"{where}: {shown(line)} is not an image and {n_labels} labels")
        if name not in wanted:
            raise UserError(f"{where}: {shown(name)} is no test image")
        if name in seen:
            raise UserError(f"{where}: {shown(name)} has a line above")
        seen.add(name)
        if len(set(map(int, labels))) < n_labels:
            raise UserError(f"{where}: a label is there twice")
        if max(map(int, labels)) >= n_classes:
            raise UserError(f"{where}: label {max(map(int, labels))} is outside the class list "
                            f"(0 to {n_classes - 1})")
    if wanted - seen:
        raise UserError(f"{path} has no line for {len(wanted - seen)} of {len(wanted)} test "
                        f"images, such as {shown(min(wanted - seen))}")


def pack_entry(path, output):
    """Write the result file into a zip archive as 'result.txt'; the same bytes every time."""
    archive = io.BytesIO()
    with open(path, "rb") as file, zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo("result.txt", FIRST_OF_JANUARY), file.read(),
                        zipfile.ZIP_DEFLATED)
    write_atomically(output, archive.getvalue())


if __name__ == "__main__":
    run_script(main)
