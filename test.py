"""Classifies the test images; writes the five likeliest labels of each to result.txt.

    python test.py [--config configs/photos.yaml] [--output result.txt] [--labels FILE]
                   [--ablate] [key=value …]
    python test.py --images DIR|CSV [--run FOLDER] …     (own pictures)
    mpirun --bind-to none -np N python test.py …         (N processes: system/parallel.py)

How images are seen and judged is told in pipeline/classifier.py. Beside the labels, result.csv
has the classes' names, their calibrated probabilities and the base/new score.
"""

import os
import time

from system import runtime
from system.errors import UserError, log, run_script, run_to_the_end

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

import numpy as np

from configs import load_config
from configs.command_line import Parser
from data.challenge import challenge_classes
from data.folders import data_path
from data.sources import images_to_classify
from models.parameter_count import in_words
from pipeline.borrowed import borrows
from pipeline.checkpoint import config_of_run, last_own_run
from pipeline.choice import config_path
from pipeline.classifier import look_at
from pipeline.shards import Shards
from pipeline.trained import load_trained
from pipeline.transduction import judge, require_mode
from prompts import PromptLibrary
from runs.evaluate import evaluate
from runs.gather import gather, leave_record
from runs.results import write_results
from sample.dataset import class_names, ensure_sample, is_sample, to_draw
from system import parallel
from system.lock import output_lock
from system.places import home, require_writable


def main():
    arguments = parse()
    config = settings_of(arguments)
    table_path, labels_path = paths_of(arguments, config.data)
    require_mode(config.transduction)
    require_writable({"--output": os.path.dirname(arguments.output),
                      "output.cache_dir": config.output.cache_dir, **to_draw(config.data)})
    runtime.use_accelerator(config.device, config.precision)
    start = time.perf_counter()

    # What training left: both CLIPs, the texts, the head, and where base ends and new begins
    trained = load_trained(config, expected_classes(config))
    log(f"parameters: {in_words(trained.parameters)}")

    # The images, with their labels where these are known
    draw_sample(config.data)  # only now, when what can be wrong without it is known
    images = images_to_classify(config.data, trained.classes, trained.numbers, labels_path)
    if arguments.ablate and images.labels is None:
        raise UserError(f"--ablate needs labels, and {config.data.images} has none that were "
                        "trained")

    with output_lock(f"{arguments.output}.lock"):
        # Views of each image: MTA's feature by the original CLIP, which tells base from new, and
        # by the tuned one. A report on the parts wants both of every image; so does TransCLIP.
        complete = config.transduction.mode != "none" or images.labels is not None
        shards = Shards(config.output.cache_dir, "test_images",
                        [trained.identity, config.mta.to_dict(), config.seed, complete],
                        images.paths, config.test.batch_size)
        if arguments.restart:
            shards.remove()
        features = look_at(shards, trained, config, complete)
        if features is None:  # the first process has what all have seen
            return

        # P(class) = P(its side) P(class | its side), or TransCLIP on all images together
        judged = judge(trained, features, config.transduction)
        write_results(arguments.output, table_path, images.names, trained, judged.predictions,
                      features.scores)
        shards.remove()
    n_base = np.isin(judged.predictions.labels[:, 0], trained.base).sum()
    log(f"{arguments.output}, {table_path}: {len(images.names)} images, {n_base} taken for base "
        "classes")

    # Where labels are known: accuracies, and what each part adds; for all, a record of the run
    ablation, labels = [], images.labels
    if labels is None:
        labels = np.full(len(images.names), -1)
    else:
        ablation = evaluate(trained, features, judged, labels, arguments.ablate)
    record = gather(images, labels, trained, features, judged.predictions, config)
    leave_record(config.output.checkpoint_dir, {
        **record, "temperature": judged.temperature, "ablation": ablation,
        "seconds": time.perf_counter() - start})


def knows_labels(data):
    """Whether the data are own pictures or a split, which know classes and labels themselves."""
    return data.images is not None or data.split is not None


def expected_classes(config):
    """The classes that the data list, list of `ClassName`; None where the training's count."""
    to_be_drawn = bool(to_draw(config.data))
    if borrows(config):  # which takes the classes from the data
        draw_sample(config.data)
    if to_be_drawn:
        return class_names()
    if knows_labels(config.data):
        return None
    return challenge_classes(config.data, PromptLibrary(config.prompts.dir).domains)


def draw_sample(data):
    """Draw the sample set, if it is the run's, unless it is there."""
    if is_sample(data):
        parallel.first_then_others(lambda: ensure_sample(data.root))


def paths_of(arguments, data):
    """Where the table is written and the labels lie, (path, path or None).

    Args:
        data: the config's section.
    """
    own = knows_labels(data)
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


if __name__ == "__main__":
    run_to_the_end(main, "run the same command again; it goes on after the last finished part")
