"""Classifies the test images; writes the five likeliest labels of each to result.txt.

    python test.py [--config configs/photos.yaml] [--output result.txt] [--labels FILE]
                   [--ablate] [key=value …]
    python test.py --images DIR|CSV [--run FOLDER] …     (own pictures)
    mpirun --bind-to none -np N python test.py …         (N processes: models/parallel.py)

How images are seen and judged is told in models/classifier.py. Beside the labels, result.csv
has the classes' names, their calibrated probabilities and the base/new score.
"""

import csv
import io
import os
import sys
import time
import warnings

from models import runtime
from models.errors import UserError, run_script, run_to_the_end

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

import numpy as np

from configs import load_config
from configs.choice import config_path
from configs.command_line import Parser
from configs.places import home, require_writable
from data.challenge import challenge_classes
from data.folders import data_path
from data.report import (
    ablation_table,
    print_ablation,
    print_calibration,
    print_own_sides,
    print_report,
)
from data.sample import class_names, ensure_sample, is_sample, to_draw
from data.sources import images_to_classify
from models import parallel
from models.borrowed import borrows
from models.checkpoint import config_of_run, last_own_run
from models.classifier import answer, look_at
from models.jclip.weights import write_atomically
from models.lock import output_lock
from models.parameter_count import in_words
from models.shards import Shards
from models.trained import base_logits, base_logits_of, load_trained, text_logits
from models.transduction import joint_answer, require_mode
from prompts import PromptLibrary
from runs.gather import gather
from runs.log import RunLog
from runs.record import summary_of, write_record


def main():
    arguments = parse()
    config = settings_of(arguments)
    data = config.data
    own = data.images is not None or data.split is not None  # which know classes and labels
    table_path, labels_path = paths_of(arguments, data, own)
    require_mode(config.transduction)
    drawn_to = to_draw(data)
    require_writable({"--output": os.path.dirname(arguments.output),
                      "output.cache_dir": config.output.cache_dir, **drawn_to})
    runtime.use_accelerator(config.device)
    start = time.perf_counter()
    classes = class_names() if drawn_to else None
    if not own and not drawn_to:
        library = PromptLibrary(config.prompts.dir)
        classes = challenge_classes(data, library.domains)
    if is_sample(data) and borrows(config):  # which takes the classes from the data
        draw(data)
    trained = load_trained(config, classes)
    log(f"parameters: {in_words(trained.parameters)}")
    if is_sample(data):  # only now, when what can be wrong without it has been looked at
        draw(data)
    images = images_to_classify(data, trained.classes, trained.numbers, labels_path)
    if arguments.ablate and images.labels is None:
        raise UserError(f"--ablate needs labels, and {data.images} has none that were trained")
    together = config.transduction.mode != "none"
    # The report tells what each part adds: where there are labels, both models look at all images.
    everything = together or images.labels is not None
    with output_lock(f"{arguments.output}.lock"):
        shards = Shards(config.output.cache_dir, "test_images",
                        [trained.origin, config.mta.to_dict(), config.seed, everything],
                        images.paths, config.test.batch_size)
        if arguments.restart:
            shards.remove()
        seen = look_at(shards, trained, config, everything)
        if seen is None:  # the first process has what all have seen
            return
        answers = one_by_one = answer(trained, seen)
        temperature = trained.temperature
        if together:
            temperature = 1.0  # TransCLIP's assignments are probabilities as they are
            answers, log_z = joint_answer(trained, seen, config.transduction)
        lines = [" ".join([name, *map(str, labels)]) + "\n"
                 for name, labels in zip(images.names, trained.numbers[answers.labels])]
        write_atomically(table_path, table(images.names, trained.classes, answers, seen.scores))
        write_atomically(arguments.output, "".join(lines).encode())
        shards.remove()
    is_base = np.isin(answers.labels[:, 0], trained.base)
    log(f"{arguments.output}, {table_path}: {len(lines)} images, {is_base.sum()} taken for base "
        "classes")
    ablation = []
    if images.labels is not None:
        print_report(trained.classes, trained.base, answers.labels, seen.scores, is_base,
                     images.labels)
        print_calibration(answers, images.labels, temperature)
        rows = ablation_rows(trained, seen, one_by_one.labels)
        if together:
            rows.append(("+ all images together", log_z[:, trained.base], log_z[:, trained.new],
                         answers.labels))
        ablation = ablation_table(rows, trained.base, trained.new, images.labels)
        print_own_sides(ablation)
        if arguments.ablate:
            print_ablation(ablation)
    labels = np.full(len(lines), -1) if images.labels is None else images.labels
    record = gather(images, labels, trained, seen, answers, config)
    leave(config.output.checkpoint_dir,
          {**record, "temperature": temperature, "ablation": ablation,
           "seconds": time.perf_counter() - start})


def draw(data):
    """Draw the sample set unless it is there; `data` is the config's section."""
    parallel.first_then_others(lambda: ensure_sample(data.root))


def paths_of(arguments, data, own):
    """Where the table is written and the labels lie, (path, path or None).

    Args:
        data: the config's section. own: whether the data know their labels themselves.
    """
    table_path = os.path.splitext(arguments.output)[0] + ".csv"
    if os.path.isdir(arguments.output) or not os.path.basename(arguments.output):
        raise UserError(f"--output {arguments.output} is a folder; name a file in it, such as "
                        f"{os.path.join(arguments.output, 'result.txt')}")
    if table_path == arguments.output:
        raise UserError(f"--output {arguments.output} is the name of the table beside it; give "
                        "another, such as result.txt")
    if data.images is not None and arguments.images is None:
        raise UserError(f"{data.images} was trained on; name the pictures to classify: --images "
                        "DIR")
    labels_path = arguments.labels
    if labels_path is not None and not os.path.isfile(labels_path):
        raise UserError(f"no label file {labels_path}; name a file of lines 'image label'")
    if labels_path is None and data.labels is not None and not own:
        labels_path = data_path(data, "labels")
    if arguments.ablate and labels_path is None and not own:
        raise UserError("--ablate needs --labels FILE to measure on")
    return table_path, labels_path


def leave(folder, record):
    """Leave the record, a line of the log and, where labels are known, the page in a run folder.

    The result is written by now, so a folder that cannot be written is only warned of.
    """
    try:
        write_record(folder, record)
        run_log = RunLog(folder)
        run_log.begin("test")
        run_log.write(record["seconds"], images=len(record["names"]), **summary_of(record))
        if (record["labels"] >= 0).any():
            from runs.page import write_run_page  # here, as it loads matplotlib
            log(f"{write_run_page(folder)}: the run's page")
    except OSError as error:
        warnings.warn(f"no report: {error}; set output.checkpoint_dir to a folder that can be "
                      "written", stacklevel=1)


def parse():
    """The command line's arguments."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_settings()
    parser.add_argument("--images", type=home, metavar="DIR|CSV", help="own pictures to classify")
    parser.add_argument("--run", type=home, metavar="FOLDER", help="checkpoint folder, whose "
                        "training's settings count; with --images by default the own run trained "
                        "last")
    parser.add_argument("--output", type=home, default="result.txt", help="file to write")
    parser.add_argument("--labels", type=home, help="lines 'image label': also print accuracies")
    parser.add_argument("--ablate", action="store_true", help="with labels: print part by part")
    parser.add_argument("--restart", action="store_true",
                        help="start over instead of going on from where a stopped run was")
    return parser.read()


def settings_of(arguments):
    """The `Config` to test with: a run's own, or a file's."""
    run = arguments.run
    if run is None and arguments.images is not None and arguments.config is None:
        run = last_own_run()
        if run is None:
            raise UserError("nothing is trained on own pictures; run train.py --images DIR, or "
                            "name with --config what to classify them with")
        log(f"{run}: the run on own pictures that was trained last")
    if run is not None:
        return config_of_run(run, arguments.overrides, arguments.images)
    changes = {} if arguments.images is None else {"data": {"images": arguments.images}}
    path = config_path(arguments.config, arguments.overrides, ("weights", "test"))
    return load_config(path, arguments.overrides, changes)


def table(names, classes, answers, scores):
    """result.csv: a line an image, UTF-8 bytes; without new classes there is no base score."""
    places = range(1, answers.labels.shape[1] + 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *(f"name_{i}" for i in places),
                     *(f"probability_{i}" for i in places), "base_score"])
    for name, labels, shares, score in zip(names, answers.labels, answers.probabilities, scores):
        writer.writerow([name, *(classes[label].name for label in labels),
                         *(f"{share:.4f}" for share in shares),
                         f"{score:.4f}" if np.isfinite(score) else ""])
    return text.getvalue().encode()


def ablation_rows(trained, seen, rankings):
    """What `ablation_table` takes, as the parts are added; all from the same features.

    Args:
        trained, seen: everything of it.
        rankings: int array (N, K), labels as the base/new decision has them.
    """
    zero_shot, zero_shot_mta = (text_logits(trained, features, trained.zero_shot_text)
                                for features in (seen.whole, seen.all_modes))
    base, new = zero_shot[:, trained.base], zero_shot[:, trained.new]

    def of_whole(head):
        return base_logits(trained, seen.whole, seen.tuned_whole, head)

    with_mta = base_logits(trained, seen.modes, seen.tuned_modes, trained.head)
    last = base_logits_of(trained, seen), zero_shot_mta[:, trained.new]
    rows = [("zero-shot", base, new, None)]
    if trained.prompt_text is not None:
        rows += [
            ("+ learned prompt, half", text_logits(trained, seen.whole, trained.prompt_text), new,
             None),
            ("+ queue average", text_logits(trained, seen.whole, trained.queue_text), new, None)]
    rows.append(("+ LoRA", of_whole(None), new, None))
    if trained.head is not None:
        rows.append(("+ head", of_whole(trained.plain_head), new, None))
        if trained.head.reweights():
            rows.append(("+ channel re-weighting", of_whole(trained.head), new, None))
    rows.append(("+ MTA", with_mta, zero_shot_mta[:, trained.new], None))
    if trained.aux_head is not None:
        rows.append(("+ auxiliary", *last, None))
    return [*rows, ("+ OOD", *last, rankings)]


def log(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_to_the_end(main, "run the same command again; it goes on after the last finished part")
