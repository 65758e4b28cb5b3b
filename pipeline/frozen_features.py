"""Stage 2's features of images by frozen models, kept in the cache folder.

Each kind lies there under a name that tells the models, the texts and the crops; so a stopped run
goes on, and the head is fitted again without them being computed again. All methods return None in
all processes but the first.
"""

import functools

import numpy as np

from data.views import Views, view_batches
from pipeline.look import first_views, views_in_testing
from pipeline.shards import Shards, files_checksum
from system import parallel


class FrozenFeatures:
    """The features that heads, threshold and temperatures are made of.

    Args:
        look: `pipeline.look.Look`.
        preprocess: `jclip`'s.
        run: `pipeline.training.TrainingRun`, whose stage 1 made the tuned CLIP.
    """

    def __init__(self, look, preprocess, run):
        self.look, self.preprocess = look, preprocess
        self.config, self.restart = run.config, run.restart
        self._clip = run.made_with["clip"]
        self._stage_1 = files_checksum([run.path("prompt_lora.pkl")])

    def of_crops(self, paths):
        """Of random crops of the training images by the tuned CLIP: array (N, V, D)."""
        return self._one("training_features", [self._stage_1], self._crops(), paths,
                         lambda pixels: self.look.all_views(pixels).numpy(), "tuned CLIP")

    def auxiliary(self, paths):
        """Of the same crops by the auxiliary encoder: array (N, V, A)."""
        encoder = self.look.encoder
        return self._one("auxiliary_features", [encoder.fingerprint], self._crops(), paths,
                         lambda pixels: encoder.view_features(pixels).numpy(), "auxiliary encoder")

    def by_original(self, paths, prompts, text):
        """MTA's of the training images by the original CLIP, of the first views: array (N, D).

        From them the threshold between base and new is found; they are the support when test
        images are judged together, and tell an auxiliary head how sure zero-shot CLIP is.

        Args:
            prompts: list (C) of lists of texts of the base classes. text: Var (C, D), theirs.
        """
        mta = self.config.mta
        views = Views(self.preprocess, first_views(mta), mta.scale, self.config.seed)
        return self._one(
            "base_image_features", [self._clip, mta.to_dict(), prompts], views, paths,
            lambda pixels: self.look.modes(self.look.first_views(pixels), text), "original CLIP")

    def held_back(self, samples, prompts):
        """Of images that were not trained on, looked at as test.py looks.

        Args:
            samples: list (N) of `Sample`. prompts: list (C) of lists of texts of all classes.

        Returns:
            {'modes', 'tuned_modes': arrays (N, D), MTA's by both CLIPs, 'held_back_labels': int
            array (N,)}, and with an auxiliary encoder 'aux_features': array (N, A).
        """
        look, D = self.look, self.look.text.shape[1]
        views = views_in_testing(self.preprocess, self.config)
        depends_on = [self._clip, self._stage_1, self.config.mta.to_dict(), prompts]
        widths = {"modes": D, "tuned_modes": D}
        if look.encoder is not None:
            depends_on += [look.encoder.fingerprint, self.config.aux.views]
            widths["aux_features"] = look.encoder.n_features

        def encode(pixels):
            found = {"modes": look.modes(look.first_views(pixels)),
                     "tuned_modes": look.tuned_modes(look.all_views(pixels))}
            if look.encoder is not None:
                found["aux_features"] = look.auxiliary(pixels)
            return found

        if samples:
            found = self._arrays("held_back_images", depends_on, views,
                                 [sample.path for sample in samples], encode, "held-back images")
        else:
            found = {name: np.zeros((0, width), np.float32) for name, width in widths.items()}
        if not parallel.is_first():
            return None
        return {**found, "held_back_labels": np.array([sample.label for sample in samples], int)}

    def _crops(self):
        return Views(self.preprocess, self.config.head.views, self.config.train.scale,
                     self.config.seed, whole_first=False)

    def _one(self, name, depends_on, views, paths, encode, description):
        found = self._arrays(name, depends_on, views, paths,
                             lambda pixels: {"features": encode(pixels)}, description)
        return None if found is None else found["features"]

    def _arrays(self, name, depends_on, views, paths, encode, description):
        """What `encode` makes of each image's views: of an earlier run, or computed now."""
        batch_size = self.config.test.batch_size
        shards = Shards(self.config.output.cache_dir, name, [*depends_on, views.identity], paths,
                        batch_size)
        if self.restart:
            shards.remove()
        batches = functools.partial(view_batches, views, batch_size=batch_size,
                                    n_threads=self.config.workers, description=description)
        return shards.compute(batches, encode)
