"""CLIP in Jittor with jclip's API.

    from models import jclip

    model, preprocess = jclip.load("ViT-B-32.pkl")
    image = preprocess(Image.open("photo.jpg")).unsqueeze(0)
    logits_per_image, logits_per_text = model(image, jclip.tokenize(["a dog", "a cat"]))

After `pip install .` in the repository the first line is `import jclip`, from anywhere.
"""

import os

try:
    from system import runtime
except ImportError as error:
    raise ImportError("jclip needs the packages 'models' and 'system' that were installed with "
                      "it, and others of these names stand before them; rename those") from error
from models.jclip.tokenizer import tokenize
from system.errors import UserError

__all__ = ["available_models", "load", "tokenize"]

if __name__ == "jclip":  # installed: who imports Jittor next must find it prepared
    runtime.prepare()

# OpenAI's names, and the files in which the challenge's users keep them.
_FILES = {"ViT-B/32": "ViT-B-32.pkl", "ViT-B/16": "ViT-B-16.pkl", "ViT-L/14": "ViT-L-14.pkl",
          "ViT-L/14@336px": "ViT-L-14-336px.pkl", "RN50": "RN50.pkl", "RN101": "RN101.pkl",
          "RN50x4": "RN50x4.pkl"}


def available_models():
    """The names that `load` takes beside paths."""
    return list(_FILES)


def load(name_or_path, activation=None):
    """A CLIP and its preprocessing.

    Args:
        name_or_path: a file of any format of `models.jclip.formats`, a folder that holds one, or
            a name of `available_models()`, whose file is then looked for in the working
            directory and in the hub's cache, and downloaded if it is in neither.
        activation: 'quick_gelu' or 'gelu', for weights that do not tell which they need.

    Returns:
        (model, preprocess): `models.jclip.model.CLIP` in float32, and a callable that turns a
        PIL image into a Var (3, S, S).

    Raises:
        UserError: no such file; a file that is no CLIP, or whose names and shapes do not fit,
            or whose values are not finite.
    """
    runtime.prepare()  # the imports below are the first ones of Jittor
    from models.jclip.formats import read_weights, sizes_of_weights
    from models.jclip.hub import fetch
    from models.jclip.model import CLIP
    from models.jclip.parameters import fill
    from models.jclip.preprocess import Preprocess

    path = os.path.expanduser(_FILES.get(name_or_path, name_or_path))
    if not os.path.exists(path):
        if name_or_path not in _FILES:
            raise UserError(f"no weights at {path}; put the file there, or name another "
                            f"(known models: {', '.join(_FILES)})")
        path = fetch(name_or_path, path)
    weights = read_weights(path, activation)
    sizes = sizes_of_weights(path, weights)
    model = CLIP(sizes)
    fill(path, model, weights.state)
    return model, Preprocess(sizes.image_size)
