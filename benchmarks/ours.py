"""This project's side of benchmarks/run.py, which starts it: python -m benchmarks.ours."""

import functools
import os
import sys

from benchmarks.worker import Work, serve, take_stdout

if __name__ == "__main__":
    ANSWERS = take_stdout()  # before anything is imported that may print

from system import runtime

runtime.prepare()

import jittor as jt
import numpy as np

from benchmarks import inputs
from benchmarks.generated import boxes_of, lora_state, script
from data.resampling import resample
from data.views import Views, read_ahead
from models import lora
from models.jclip.model import CLIP, linear
from models.jclip.preprocess import STD, Preprocess, normalise
from models.jclip.sizes import sizes_of
from models.lp_plus_plus import LPPlusPlus
from models.mta import mta
from models.prompt import PromptLearner, class_features, tokenize_prompts
from system.kernel_compiler import prepare_kernel_compiler
from train import handcrafted_features, learned_features
from train import training_step as step_of_training


def clip(model):
    """A frozen CLIP with the weights of `inputs.clip_state`."""
    state = inputs.clip_state(model)
    built = CLIP(sizes_of(state))
    for name, parameter in built.named_parameters():
        parameter.update(jt.array(state.pop(name)))
    lora.freeze(built)
    jt.sync_all()
    return built


def images(sizes, folder):
    """`Work` of the pairs image-…: features of a batch of images."""
    model = clip(sizes["model"])
    batch = jt.array(inputs.images(sizes["model"], sizes["batch"]))

    def run():
        with jt.no_grad():
            return model.encode_image(batch).numpy()

    return Work(run, lambda: {"features": run()},
                inputs.image_flops(sizes["model"], sizes["batch"]))


def text(sizes, folder):
    """`Work` of the pair text: features of all classes."""
    model = clip(sizes["model"])
    prompts = inputs.class_prompts(sizes["classes"], sizes["prompts"])
    distinct = list(dict.fromkeys(text for texts in prompts for text in texts))
    lengths = lengths_of(model, distinct)

    def run():
        return class_features(model, prompts).numpy()

    return Work(run, lambda: {"features": run()}, inputs.text_flops(sizes["model"], lengths))


def lengths_of(model, texts):
    """Tokens of each text with start and end, int array."""
    return tokenize_prompts(model, texts).argmax(axis=1) + 1


def training_step(sizes, folder, dropout=0.0):
    """`Work` of the pair train-step: two steps of train.py's `tune`, by default without dropout."""
    model = clip(sizes["model"])
    names = inputs.class_names(sizes["classes"])
    learner = PromptLearner(model, names, inputs.CONTEXT_WORDS)
    layers = lora.apply_lora(model, "both", rank=sizes["rank"], alpha=1.0, dropout=dropout)
    lora.load_lora_state(model, lora_state(sizes["model"], sizes["rank"]))
    learner.context.start_grad()
    groups = [{"params": [learner.context], "weight_decay": 0.0},
              {"params": lora.parameters(layers), "weight_decay": inputs.WEIGHT_DECAY}]
    optimizer = jt.optim.AdamW(groups, lr=inputs.LEARNING_RATE)
    batch = jt.array(inputs.images(sizes["model"], sizes["batch"]))
    labels = inputs.targets(sizes["classes"], sizes["batch"])
    texts = inputs.drawn_prompts(sizes["classes"])
    drawn, scale = tokenize_prompts(model, texts), model.scale()
    counts = np.ones(len(names), np.float32)

    def step(texts):
        loss, _ = step_of_training(optimizer, model, batch, (texts, counts), labels, scale, [0])
        jt.sync([learner.context, *lora.parameters(layers)])
        return loss.item()

    def learned():
        return step(functools.partial(learned_features, model, learner,
                                      np.arange(len(names))))

    def handcrafted():
        return step(functools.partial(handcrafted_features, model, drawn))

    def result():
        loss = learned()
        (context,), gradients = (group["grads"] for group in groups)
        named = {"context": context.numpy()}
        # In the order of the blocks, those of the image encoder first.
        for name, down, up in zip(lora_names(sizes["model"]), gradients[::2], gradients[1::2]):
            named[f"{name}.down"] = down.numpy().reshape(3, sizes["rank"], -1)  # from (3R, W)
            named[f"{name}.up"] = up.numpy()
        return {"loss": loss, "second_loss": handcrafted(), "third_loss": learned(), **named}

    # Forward, and backward to the activations alone: the weights are frozen.
    lengths = [*lengths_of(model, [f"{inputs.CONTEXT_WORDS} {name}." for name in names]),
               *lengths_of(model, texts)]
    return Work(lambda: (learned(), handcrafted()), result,
                2 * (2 * inputs.image_flops(sizes["model"], sizes["batch"])
                     + inputs.text_flops(sizes["model"], lengths)))


def lora_names(model):
    """'vision.0', …: the blocks of both encoders in the order of `apply_lora`'s layers."""
    sizes = inputs.MODELS[model]
    return [f"{tower}.{i}" for tower, layers in (("vision", "layers"), ("text", "text_layers"))
            for i in range(sizes[layers])]


def fitting(sizes, folder):
    """`Work` of the pair head."""
    features, labels, texts = inputs.head_data(sizes)

    def run():
        head = LPPlusPlus(sizes["epochs"], channel_reweighting=True, **inputs.HEAD)
        head.fit(features, labels, texts)
        jt.sync([head.w, head.bias, head.alpha, head.scale], True)
        return head

    def result():
        head = run()
        learned = {"weight": head.w, "bias": head.bias, "alpha": head.alpha, "scale": head.scale,
                   "logits": head.logits(features[::50])}
        return {name: value.numpy() for name, value in learned.items()}

    # Two products an epoch: the logits, and the gradient of all that is learned.
    N, C, D = len(features), *texts.shape
    return Work(run, result, 4.0 * sizes["epochs"] * N * C * D)


def modes(sizes, folder):
    """`Work` of the pair mta."""
    views, texts = (jt.array(part) for part in inputs.mta_data(sizes))
    jt.sync([views, texts])
    B, V, D = views.shape
    C = texts.shape[0]

    def run():
        with jt.no_grad():
            return mta(views, texts, inputs.LOGIT_SCALE)[0].numpy()

    return Work(run, lambda: {"modes": run()}, 2.0 * B * V * (C * D + V * C + V * D))


def crops(sizes, folder):
    """`Work` of the pair crops: all views of some photos; writes them and the crops' boxes."""
    paths = [os.path.join(folder, f"{i}.jpg") for i in range(sizes["images"])]
    for i, path in enumerate(paths):
        inputs.write_photo(path, seed=i)
    views = Views(Preprocess(sizes["side"]), sizes["views"], (0.5, 1.0), seed=1,
                  whole_first=False)
    np.save(os.path.join(folder, "boxes.npy"), boxes_of(views, paths))
    n_workers = int(os.environ["OMP_NUM_THREADS"])

    def run():
        for plan in read_ahead(views.plan, paths, n_workers, ahead=2 * n_workers):
            jt.sync([normalise(resample(*plan))], True)

    def result():
        std = np.float32(STD).reshape(3, 1, 1)
        return {"pixels": normalise(views.of(paths[0])).numpy() * std * 255}

    return Work(run, result)


WORKS = {"image-b32": images, "image-b32-one": images, "image-b16": images, "text": text,
         "train-step": training_step, "head": fitting, "mta": modes, "crops": crops,
         "test": script}


def numpy_product(a, b):
    return lambda: a @ b


def jittor_product(a, b):
    a, weight = jt.array(a), jt.array(np.ascontiguousarray(b.T)).stop_grad()

    def run():
        with jt.no_grad():
            jt.sync([linear(a, weight)], True)
    return run


if __name__ == "__main__":
    runtime.use_accelerator(os.environ.get("BENCHMARK_DEVICE", "cpu"),
                            os.environ.get("BENCHMARK_PRECISION", "float32"))
    prepare_kernel_compiler()
    serve(ANSWERS, WORKS, f"Jittor {jt.__version__}, NumPy {np.__version__}, Python "
          f"{sys.version.split()[0]}, {os.environ['OMP_NUM_THREADS']} threads, "
          f"{'cuda' if jt.flags.use_cuda else 'cpu'}, {runtime.precision()}",
          {"NumPy": numpy_product, "Jittor": jittor_product})
