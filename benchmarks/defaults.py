"""Which settings matter: accuracies of trained runs as one setting at a time is changed.

    python benchmarks/defaults.py FOLDER … --labels LABELS [--views 32] [key=value …]

FOLDER is a checkpoint folder, such as a seed's of a sweep; the figures are the mean and the
standard deviation over the folders. LABELS has lines 'image label' for data.test_dir. All settings
are applied to the same features; what training depends on stays as it was (the head was fitted with
the run's own texts).
"""

import argparse
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from system import runtime

runtime.prepare()

import jittor as jt
import numpy as np

from configs import load_config
from data.challenge import challenge_classes
from data.sources import images_to_classify
from data.views import Views, view_batches
from models.features import encode_views
from models.prompt import PromptLearner, classifier_features, handcrafted_prompts
from pipeline.checkpoint import config_of_run
from pipeline.checkpoint_parts import check_parts
from pipeline.classifier import ImageFeatures, ThriftyLook, predict
from pipeline.look import first_views
from pipeline.trained import base_threshold, load_trained
from pipeline.transduction import predict_together
from prompts import PromptLibrary
from runs.metrics import summary
from system.files import read_pickle

FIGURES = ("base", "new", "harmonic_mean")
CHANGES = {
    "prompt.queue_length": (1, 2, 3),
    "prompt.queue_weight": (0.0, 0.25, 0.5, 0.75, 1.0),
    "ood.score": ("mass", "winner", "neglabel"),
    "ood.recall": (0.9, 0.95, 0.98, 0.99),
    "mta.views": (1, 2, 4, 8, 16, 32),
    "mta.zero_shot_views": (1, 2, 4, 8, 16, 32),
    "mta.lambda_q": (1.0, 4.0, 16.0),
    "mta.lambda_y": (0.05, 0.2, 0.8),
    "transduction.mode": ("none", "few-shot", "zero-shot"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="and settings key=value")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--views", type=int, default=32, help="most views of an image")
    arguments = parser.parse_intermixed_args()
    folders = [text for text in arguments.folders if "=" not in text]
    overrides = [text for text in arguments.folders if "=" in text]
    runs = [Run(folder, overrides, arguments) for folder in folders]
    print(f"| setting | value | {' | '.join(FIGURES)} |\n|{' --- |' * (2 + len(FIGURES))}")
    for key, values in CHANGES.items():
        for value in values:
            if key.endswith("views") and value > arguments.views:
                continue
            shares = np.array([run.measure(key, value) for run in runs])
            cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in
                     zip(100 * shares.mean(axis=0), 100 * shares.std(axis=0))]
            is_own = value == runs[0].value(key)
            print(f"| {key} | {f'**{value}**' if is_own else value} | {' | '.join(cells)} |",
                  flush=True)


class Run:
    """A trained run and the features of the labelled images' views.

    Args:
        folder: checkpoint folder. overrides: settings. arguments: the command line's.
    """

    def __init__(self, folder, overrides, arguments):
        self._config = config_of_run(folder, overrides)
        self._trained = load_trained(self._config, challenge_classes(
            self._config.data, PromptLibrary(self._config.prompts.dir).domains))
        path = os.path.join(folder, "prompt_lora.pkl")
        stage_1 = read_pickle(path)
        check_parts(path, stage_1, ("contexts",), self._trained.original.sizes)
        self._contexts = stage_1["contexts"]
        images = images_to_classify(self._config.data, self._trained.classes,
                                    self._trained.numbers, arguments.labels)
        self._labels, self._features, self._tuned = images.labels, [], []
        settings = self._config.mta
        views = Views(self._trained.preprocess, arguments.views, settings.scale,
                      self._config.seed)
        for _, pixels, _ in view_batches(views, images.paths, self._config.test.batch_size,
                                         self._config.workers, folder):
            self._features.append(encode_views(self._trained.original, pixels).numpy())
            self._tuned.append(encode_views(self._trained.tuned, pixels).numpy())
        self._features, self._tuned = map(np.concatenate, (self._features, self._tuned))

    def value(self, key):
        """A setting of the run itself."""
        section, name = key.split(".")
        return self._config.to_dict()[section][name]

    def measure(self, key, value):
        """`FIGURES` with one setting changed, array of shares."""
        config = load_config(None, (), self._config.to_dict(),
                             {key.split(".")[0]: {key.split(".")[1]: value}})
        together = config.transduction.mode != "none"
        trained = self._trained
        if key.startswith("prompt."):
            trained = trained._replace(
                texts=trained.texts._replace(tuned=self._tuned_text(config)))
        trained = trained._replace(decision=trained.decision._replace(
            threshold=base_threshold(trained, config.ood)))
        V = config.mta.views
        look = ThriftyLook(trained, config, together)
        modes, all_modes, scores = look.original_modes(
            jt.array(self._features[:, :first_views(config.mta)]),
            lambda rows: jt.array(self._features[rows, :V]))
        tuned_modes = look.tuned_modes(jt.array(self._tuned[:, :V]))
        features = ImageFeatures(modes, tuned_modes, all_modes, scores)
        if together:
            labels = predict_together(trained, features, config.transduction)[0].labels
        else:
            labels = predict(trained, features).labels
        shares = summary(trained.base, labels, scores, self._labels)
        return [shares[figure] for figure in FIGURES]

    def _tuned_text(self, config):
        library = PromptLibrary(config.prompts.dir)
        classes = [self._trained.classes[label] for label in self._trained.base]
        learner = PromptLearner(self._trained.original, [library.name(c) for c in classes],
                                config.prompt.init)
        return classifier_features(
            self._trained.tuned, learner, self._contexts[-config.prompt.queue_length:],
            handcrafted_prompts(library, classes, config.prompts), config.prompt.queue_weight)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
