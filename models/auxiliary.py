"""A second image encoder beside CLIP, frozen: from a weights file to features of views.

MoCo v3's ResNet-50 is what AMU-Tuning takes (see `models.amu`); any ResNet with bottlenecks and
torchvision's names may serve, and any CLIP that `models.jclip` reads.
"""

import os
from typing import NamedTuple

from jittor import nn

from models import jclip, lora
from models.features import encode_in_parts
from models.jclip.formats import read_state
from models.jclip.model import unit_norm
from models.jclip.parameters import fill, fingerprint
from models.jclip.preprocess import MEAN, STD, normalise
from models.jclip.weights import check_not_empty
from models.resnet import ResNet, sizes_of
from system.errors import UserError
from system.places import beside_scripts
from system.untrusted import same_value

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What a checkpoint of the auxiliary head depends on, beside the encoder itself.
SETTINGS = ("aux.epochs", "aux.lr", "aux.merged_share", "aux.alpha", "aux.power")
_MARK = "layer1.0.conv3.weight"  # a name that every ResNet with bottlenecks has
_WANTED = "MoCo v3's r-50-1000ep.pth.tar, the entry's res1000epoch.pkl, or a CLIP's weights"


class Encoder(NamedTuple):
    """A frozen encoder and how it takes views.

    Attributes:
        encode: function of images, Var (B, 3, S, S), that returns features (B, A).
        image_size: S. mean, std: of the channels.
        n_features: A. bytes_per_image: memory that an image of a batch takes.
        fingerprint: checksum of the weights, int.
    """

    encode: object
    image_size: int
    mean: tuple
    std: tuple
    n_features: int
    bytes_per_image: int
    fingerprint: int

    def view_features(self, pixels):
        """Unit-norm features (B, V, A), Var, of views uint8 (B, V, S', S', 3)."""
        def encode(flat):
            images = normalise(flat, self.mean, self.std)
            if images.shape[-1] != self.image_size:
                images = nn.interpolate(images, size=(self.image_size, self.image_size),
                                        mode="bilinear")
            return self.encode(images)

        return encode_in_parts(encode, pixels, self.bytes_per_image)

    def image_features(self, pixels):
        """The mean of each image's views' features, array (B, A), unit norm."""
        return unit_norm(self.view_features(pixels).mean(dim=1)).numpy()


def load_encoder(path, view_size):
    """The `Encoder` of a weights file; None without a path.

    Args:
        path: a file of any format of `models.jclip.formats`, a folder that holds one, or a name
            of `jclip.available_models()`; in the working folder or beside the scripts.
        view_size: side of the views in pixels, at which a ResNet takes them; a CLIP has a size
            of its own, to which they are resized.

    Raises:
        UserError: no such file, or one without a known encoder.
    """
    if path is None:
        return None
    path = beside_scripts(path)
    if not os.path.exists(path):
        if path not in jclip.available_models():
            raise UserError(f"no auxiliary weights at {path}; put {_WANTED} there, or set "
                            "aux.weights=null")
        return _of_clip(path)
    state, _, _ = read_state(path)
    resnet = resnet_state(state)
    if resnet:
        return _of_resnet(path, resnet, view_size)
    if not any(name.startswith(("visual.", "vision_model.")) for name in state):
        raise UserError(f"{path} holds no ResNet with bottlenecks and no CLIP; aux.weights takes "
                        f"{_WANTED}")
    return _of_clip(path)


def check_encoder(path, content, encoder):
    """Refuse a checkpoint whose head was fitted to another encoder's features.

    Raises:
        UserError
    """
    saved = content.get("aux_encoder")
    if saved is None:
        raise UserError(f"{path} was trained without aux.weights; run train.py --stage 2 with it")
    if not same_value(saved, encoder.fingerprint):
        raise UserError(f"{path} was trained with other auxiliary weights than aux.weights; use "
                        "those, or train again")


def resnet_state(state):
    """The part of a state dict that is a ResNet's image encoder, with torchvision's names.

    MoCo v3's checkpoint has two, 'base_encoder.' and 'momentum_encoder.', of which the first is
    meant. The classifier or projector, 'fc.', is left out.

    Returns:
        {name: array}; empty if there is none.
    """
    prefixes = [name[:-len(_MARK)] for name in state if name.endswith(_MARK)]
    prefixes = [p for p in prefixes if not p.endswith(("momentum_encoder.", "visual."))]
    if not prefixes:
        return {}
    n = len(prefixes[0])
    return {name[n:]: value for name, value in state.items()
            if name.startswith(prefixes[0]) and not name.startswith("fc.", n)}


def _of_resnet(path, state, view_size):
    check_not_empty(path, state)
    try:
        sizes = sizes_of(state)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} holds no whole ResNet ({error}); get it again") from error
    model = ResNet(sizes)
    fill(path, model, state)
    lora.freeze(model)
    return Encoder(model, view_size, IMAGENET_MEAN, IMAGENET_STD, sizes.stages[-1].n_out,
                   sizes.bytes_per_image(view_size), fingerprint(model))


def _of_clip(path):
    model, _ = jclip.load(path)
    lora.freeze(model)
    return Encoder(model.encode_image, model.sizes.image_size, MEAN, STD, model.sizes.embed_dim,
                   model.sizes.bytes_per_image, fingerprint(model))
