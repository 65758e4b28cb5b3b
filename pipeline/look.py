"""Which views of an image are looked at: in testing, and where its threshold and temperatures come
from."""

from data.views import Views


def views_in_testing(preprocess, config):
    """`Views` of a test image: the whole image, and random crops."""
    return Views(preprocess, config.mta.views, config.mta.scale, config.seed)


def first_views(mta):
    """How many of them tell base from new; `mta` is the config's section."""
    return min(mta.views, mta.zero_shot_views)
