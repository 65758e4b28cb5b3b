"""One way to look at an image: its views, by both CLIPs and the auxiliary encoder.

Testing looks so at every image, and training at those from which the threshold and the temperatures
come, which would not hold otherwise.
"""

from data.views import Views
from models.features import encode_views, mta_features


def views_in_testing(preprocess, config):
    """`Views` of a test image: the whole image, and random crops."""
    return Views(preprocess, config.mta.views, config.mta.scale, config.seed)


def first_views(mta):
    """How many of them tell base from new; `mta` is the config's section."""
    return min(mta.views, mta.zero_shot_views)


class Look:
    """What the models make of the views of images.

    Args:
        original, tuned: CLIPs.
        encoder: auxiliary `Encoder`, or None.
        text: Var (C, D), all classes', by the original CLIP.
        tuned_text: Var (C_base, D), by the tuned one.
        config: the run's.
    """

    def __init__(self, original, tuned, encoder, text, tuned_text, config):
        self.original, self.tuned, self.encoder = original, tuned, encoder
        self.text, self.tuned_text = text, tuned_text
        self.config = config
        self.logit_scale = original.scale()

    def first_views(self, pixels):
        """Pixels (B, V, S, S, 3) -> the original CLIP's features of the first, Var (B, V', D)."""
        return encode_views(self.original, pixels[:, :first_views(self.config.mta)])

    def further_views(self, pixels):
        """The same of the others, of which there must be some, Var (B, V - V', D)."""
        return encode_views(self.original, pixels[:, first_views(self.config.mta):])

    def all_views(self, pixels):
        """Pixels (B, V, S, S, 3) -> the tuned CLIP's features, Var (B, V, D)."""
        return encode_views(self.tuned, pixels)

    def modes(self, view_features, text=None):
        """MTA's of the original CLIP's features, array (B, D); `text`: all classes', if None."""
        return mta_features(view_features, self.text if text is None else text, self.logit_scale,
                            self.config.mta)

    def tuned_modes(self, view_features):
        """MTA's of the tuned CLIP's features, array (B, D)."""
        return mta_features(view_features, self.tuned_text, self.logit_scale, self.config.mta)

    def auxiliary(self, pixels):
        """The auxiliary encoder's features of images, array (B, A)."""
        return self.encoder.image_features(pixels[:, :self.config.aux.views])
