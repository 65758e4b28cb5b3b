"""Tells what a file of CLIP weights is, or writes it in another format.

    python -m models.jclip info FILE|FOLDER
    python -m models.jclip convert IN OUT.pkl|OUT.safetensors [--activation gelu|quick_gelu]
"""

import os

import numpy as np

from configs.command_line import Parser
from models.jclip.formats import ACTIVATIONS, read_weights, sizes_of_weights
from models.jclip.hub import sha256_of
from models.jclip.places import weights_files
from models.jclip.sizes import ResNetSizes
from system.errors import UserError, run_script
from system.files import write_atomically, write_pickle

# SHA-256 of OpenAI's published files, which stand in the addresses of its own loader.
_RELEASES = {
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "OpenAI ViT-B/32",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "OpenAI ViT-B/16",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "OpenAI ViT-L/14",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "OpenAI ViT-L/14@336px",
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762": "OpenAI RN50",
    "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599": "OpenAI RN101",
    "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd": "OpenAI RN50x4",
}


def main():
    parser = Parser(__doc__.splitlines()[0], prog="python -m models.jclip")
    commands = parser.add_subparsers(dest="command", required=True)
    info_parser = commands.add_parser("info", help="print what a file is")
    info_parser.add_argument("path", metavar="FILE")
    convert_parser = commands.add_parser("convert", help="write another format")
    convert_parser.add_argument("path", metavar="IN")
    convert_parser.add_argument("output", metavar="OUT")
    for each in (info_parser, convert_parser):
        each.add_argument("--activation", choices=ACTIVATIONS,
                          help="for weights that do not tell which they need")
    arguments = parser.parse_args()
    weights = read_weights(arguments.path, arguments.activation)
    if arguments.command == "info":
        info(arguments.path, weights)
    else:
        convert(weights, arguments.output)


def info(path, weights):
    """Print the format, sizes, number type and SHA-256 of a file, and the release it is."""
    sizes = sizes_of_weights(path, weights)
    files = weights_files(path)
    checksum = sha256_of(files[0]) if len(files) == 1 else ""
    size = sum(map(os.path.getsize, files)) / 1e6
    place = files[0] if len(files) == 1 else f"{path} in {len(files)} files"
    lines = {
        "file": f"{place}, {size:.1f} MB, {weights.format}",
        "number type": ", ".join(sorted({str(v.dtype) for v in weights.state.values()})),
        "activation": weights.activation,
        "parameters": f"{sum(int(value.size) for value in weights.state.values()):,}",
        "images": f"{sizes.image_size} pixels, {_tower(sizes.vision)}"
                  + (f", patch {sizes.patch_size}" if sizes.patch_size else ""),
        "texts": f"{sizes.context_length} of {sizes.vocab_size} tokens, {_tower(sizes.text)}",
        "features": str(sizes.embed_dim),
        "SHA-256": checksum or "of several files",
        "release": _RELEASES.get(checksum, "not a known one"),
    }
    for name, text in lines.items():
        print(f"{name + ':':<14}{text}")


def _tower(sizes):
    if isinstance(sizes, ResNetSizes):
        return f"ResNet, width {sizes.width}, blocks {'-'.join(map(str, sizes.layers))}"
    return f"transformer, width {sizes.width}, {sizes.layers} layers, {sizes.heads} heads"


def convert(weights, output):
    """Write weights with OpenAI's names as .pkl or .safetensors."""
    state = {name: np.ascontiguousarray(value) for name, value in weights.state.items()}
    if output.endswith(".safetensors"):
        from safetensors.numpy import save
        write_atomically(output, save(state, metadata={"activation": weights.activation}))
    elif output.endswith(".pkl"):
        # jclip knows QuickGELU alone, so only the other one needs an entry.
        mark = {} if weights.activation == "quick_gelu" else {"activation": weights.activation}
        write_pickle(output, {**state, **mark})
    else:
        raise UserError(f"{output} must end in .pkl or .safetensors")
    print(f"{output}: {len(state)} arrays, {weights.activation}")


if __name__ == "__main__":
    run_script(main)
