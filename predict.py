"""Names what is in images: five classes each, with calibrated probabilities.

    python predict.py IMAGE … [--run FOLDER | --config CONFIG] [key=value …]

By default with the run on own pictures that was trained last, else as test.py. A probability
is among the base or the new classes, whichever the image is taken for.
"""

import argparse
import os
import sys

from models import runtime
from models.errors import UserError, run_script, run_to_the_end, show_warnings_in_one_line

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

from configs import config_path, load_config
from data.views import Views, view_batches
from models.checkpoint import config_of_run, last_own_run
from models.classifier import answer, judged, look, unseen
from models.trained import load_trained


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, and settings key=value")
    parser.add_argument("--config", help="YAML file that was trained with")
    parser.add_argument("--run", metavar="FOLDER", help="checkpoint folder, whose training's "
                        "settings count")
    arguments = parser.parse_intermixed_args()
    paths = [text for text in arguments.images if os.path.exists(text) or "=" not in text]
    overrides = [text for text in arguments.images if text not in paths]
    overrides.append("transduction.mode=none")  # an image is judged by itself
    for path in paths:
        if not os.path.isfile(path):
            raise UserError(f"no image {path}")
    run = arguments.run
    if run is None and arguments.config is None:
        run = last_own_run()
    if run is not None:
        config = config_of_run(run, overrides)
        print(f"{run} decides", file=sys.stderr)
    else:
        config = load_config(config_path(arguments.config), overrides)
    runtime.use_accelerator()
    trained = load_trained(config)
    views = Views(trained.preprocess, config.mta.views, config.mta.scale, config.seed)
    otherwise, n_named = unseen(trained, config, everything=False), 0
    for indices, pixels, _ in view_batches(views, paths, config.test.batch_size, config.workers,
                                           "images"):
        seen = judged(trained, look(trained, config, otherwise, pixels))
        answers = answer(trained, seen, config.fusion)
        for i, labels, shares in zip(indices, answers.labels, answers.probabilities):
            print(paths[i])
            for label, share in zip(labels, shares):
                print(f"  {100 * share:5.1f} %  {trained.classes[label].name}")
        n_named += len(indices)
    if n_named < len(paths):
        raise UserError(f"{len(paths) - n_named} of {len(paths)} images cannot be decoded")


if __name__ == "__main__":
    show_warnings_in_one_line()
    run_to_the_end(main)
