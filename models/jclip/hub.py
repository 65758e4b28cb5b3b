"""Fetches published CLIP weights from the Hugging Face hub.

`huggingface_hub` resumes a broken download, shows a bar, keeps its own cache, and obeys
HF_ENDPOINT (a mirror), HF_HUB_OFFLINE and HF_HOME.
"""

import hashlib
import os

from system.errors import UserError

# OpenAI's weights as timm publishes them: safetensors with open_clip's names and config.
_REPOSITORIES = {
    "ViT-B/32": "timm/vit_base_patch32_clip_224.openai",
    "ViT-B/16": "timm/vit_base_patch16_clip_224.openai",
    "ViT-L/14": "timm/vit_large_patch14_clip_224.openai",
    "ViT-L/14@336px": "timm/vit_large_patch14_clip_336.openai",
    "RN50": "timm/resnet50_clip.openai",
    "RN101": "timm/resnet101_clip.openai",
    "RN50x4": "timm/resnet50x4_clip.openai",
}
_WEIGHTS, _CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def fetch(name, local_path):
    """The path of a model's weights in the hub's cache, downloaded if they are not there.

    Args:
        name: one of `available_models()`.
        local_path: where the user could put the file instead; for the message.

    Raises:
        UserError: no network or no such file, or what came is not what the hub announces.
    """
    # Here, not above: the hub's settings are read from the environment at its import.
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError

    repository = _REPOSITORIES[name]
    cached = _cached(repository)
    if cached is not None:
        return cached
    try:
        # OpenAI's weights are kept under the SHA-256 of their content.
        announced = get_hf_file_metadata(hf_hub_url(repository, _WEIGHTS)).etag
        hf_hub_download(repository, _CONFIG)
        path = hf_hub_download(repository, _WEIGHTS)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"no weights of {name}: not at {local_path}, and {repository} cannot be downloaded "
            f"({type(error).__name__}); put the file at {local_path}, or set HF_ENDPOINT to a "
            "mirror") from error
    if announced and len(announced) == 64 and sha256_of(path) != announced:
        os.remove(os.path.realpath(path))
        raise UserError(f"the download of {repository} is damaged (its SHA-256 is not "
                        f"{announced}); it was removed, so start again")
    return path


def _cached(repository):
    """The weights' path if they and their config are in the cache."""
    from huggingface_hub import try_to_load_from_cache
    found = [try_to_load_from_cache(repository, name) for name in (_CONFIG, _WEIGHTS)]
    return found[1] if all(isinstance(path, str) for path in found) else None


def sha256_of(path):
    """SHA-256 of a file, as 64 hexadecimal digits."""
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            checksum.update(block)
    return checksum.hexdigest()
