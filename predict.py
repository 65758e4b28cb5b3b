"""Names what is in images: five classes each, with calibrated probabilities.

    python predict.py IMAGE … [--run FOLDER | --config CONFIG] [key=value …]

By default with the run on own pictures that was trained last, else as test.py.
"""

import os
import sys

from system import runtime
from system.errors import UserError, print_beside_bars, run_script, run_to_the_end

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

from configs import load_config
from configs.command_line import Parser
from data.views import view_batches
from pipeline.checkpoint import config_of_run, last_own_run
from pipeline.choice import config_path
from pipeline.classifier import ImageFeatures, ThriftyLook, predict
from pipeline.look import views_in_testing
from pipeline.trained import load_trained
from system.places import home, require_writable


def main():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_settings("IMAGE …")
    parser.add_argument("--run", type=home, metavar="FOLDER", help="checkpoint folder, whose "
                        "training's settings count")
    arguments = parser.read()
    paths = arguments.paths
    if not paths:
        raise UserError("name an image: predict.py IMAGE …")
    # An image is judged by itself.
    overrides = [*arguments.overrides, "transduction.mode=none"]
    for path in paths:
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder; name its images, or test.py --images {path}")
        if not os.path.isfile(path):
            raise UserError(f"no image {path}")
    run = arguments.run
    if run is None and arguments.config is None:
        run = last_own_run()
    if run is not None:
        config = config_of_run(run, overrides)
        print(f"{run} decides", file=sys.stderr)
    else:
        config = load_config(config_path(arguments.config, overrides, ("weights",)), overrides)
    require_writable({"output.cache_dir": config.output.cache_dir})
    runtime.use_accelerator(config.device, config.precision)
    trained = load_trained(config)
    views = views_in_testing(trained.preprocess, config)
    look, n_named = ThriftyLook(trained, config, complete=False), 0
    for indices, pixels, _ in view_batches(views, paths, config.test.batch_size, config.workers,
                                           "images"):
        predictions = predict(trained, ImageFeatures(**look(pixels)))
        for i, labels, ps in zip(indices, predictions.labels, predictions.probabilities):
            lines = [paths[i], *(f"  {100 * p:5.1f} %  {trained.classes[label].name}"
                                 for label, p in zip(labels, ps))]
            print_beside_bars("\n".join(lines), sys.stdout)
        n_named += len(indices)
    if n_named < len(paths):
        raise UserError(f"{len(paths) - n_named} of {len(paths)} images cannot be decoded")


if __name__ == "__main__":
    run_to_the_end(main)
