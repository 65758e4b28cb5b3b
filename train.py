"""Trains the learned prompt, LoRA and the head on a few images a class.

    python train.py [--config configs/photos.yaml] [--stage 1|2] [key=value …]
    python train.py --images DIR|CSV [--new-classes FILE] …     (own pictures)
    python train.py … --sweep seed=1,2,3 lora.rank=2,4,8        (a grid of runs: runs/sweep.py)
    mpirun --bind-to none -np N python train.py …               (N processes: system/parallel.py)

Stage 1 tunes CLIP: a learned prompt (CoOp, Zhou et al. 2021, arXiv 2109.01134) and LoRA in
its encoders (Zanella and Ben Ayed 2024, arXiv 2405.18541). Stage 2 fits the head (LP++, Huang
et al. 2024, arXiv 2404.02285) on the tuned model's frozen features, and notes how the
original CLIP sees the training images, for judging all test images together, and how both see
images that were not trained on, from which test.py has its temperatures. With aux.weights it also
fits AMU-Tuning's head (Tang et al. 2024, arXiv 2404.08958). Without --stage it does both.
"""

import functools
import math

from system import runtime
from system.errors import UserError, log, run_script, run_to_the_end

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

import jittor as jt
import numpy as np
from jittor import nn

from configs import format_config, load_config, own_pictures_config
from configs.command_line import Parser
from data.views import Views, view_batches
from models import auxiliary, jclip, lora, shared_batch
from models.jclip.model import unit_norm
from models.jclip.parameters import fingerprint
from models.jclip.preprocess import normalise
from models.lora_files import read_lora
from models.prompt import (
    PromptLearner,
    PromptQueue,
    class_features,
    classifier_features,
    handcrafted_prompts,
    tokenize_prompts,
)
from models.sampled_classes import drawn_classes
from pipeline.checkpoint import made_with, refuse_other_pictures
from pipeline.choice import config_path
from pipeline.frozen_features import FrozenFeatures
from pipeline.heads import fit_auxiliary, fit_lp_plus_plus
from pipeline.look import Look
from pipeline.training import (
    EpochMeter,
    Paces,
    TrainingRun,
    decodable_data,
    images_at_once,
)
from prompts import PromptLibrary
from runs.log import RunLog
from sample.dataset import ensure_sample, is_sample, to_draw
from system import parallel
from system.places import beside_scripts, home, require_writable


def main():
    arguments = parse()
    if arguments.sweep:
        sweep_over(arguments)
        return
    config = settings_of(arguments)
    log(format_config(config))
    require_writable({"output.checkpoint_dir": config.output.checkpoint_dir,
                      "output.cache_dir": config.output.cache_dir, **to_draw(config.data)})
    runtime.use_accelerator(config.device, config.precision)
    np.random.seed(config.seed)  # LoRA's start

    # The original CLIP, frozen; and, if wanted, a second encoder
    library = PromptLibrary(config.prompts.dir)
    original, preprocess = jclip.load(beside_scripts(config.clip.weights), config.clip.activation)
    lora.freeze(original)
    encoder = auxiliary.load_encoder(config.aux.weights, preprocess.image_size)

    # Data: base classes with a few images each, new classes with names alone
    if is_sample(config.data):  # drawn only now, when what can be wrong without it is known
        parallel.first_then_others(lambda: ensure_sample(config.data.root))
    data = decodable_data(config, library)
    prompts = handcrafted_prompts(library, data.classes, config.prompts)
    learner = PromptLearner(original, [library.name(data.classes[label]) for label in data.base],
                            config.prompt.init)

    run = TrainingRun(config, made_with(config, fingerprint(original), data.classes, data.train),
                      original.sizes, RunLog(config.output.checkpoint_dir), arguments.restart)
    with run.lock():
        # Stage 1: learned prompt and LoRA, on random crops
        if arguments.stage != 2:
            with runtime.mixed_precision():
                tuned, contexts = tune(original, preprocess, data, prompts, learner, run)
            run.save("prompt_lora.pkl", {"lora": lora.lora_state(tuned), "contexts": contexts})
            parallel.barrier()  # stage 2 reads it in every process
        # Stage 2: the head on the tuned CLIP's frozen features, and what testing needs beside
        if arguments.stage != 1:
            run.save("head.pkl", fit_heads(original, preprocess, data, prompts, learner, encoder,
                                           run))
            run.finish()


def tune(original, preprocess, data, prompts, learner, run):
    """Stage 1: train the learned prompt, in place, and LoRA in a copy of the original CLIP.

    Args:
        original: CLIP, frozen. preprocess: `jclip`'s.
        data: `Challenge`. prompts: list (C) of lists of handcrafted prompts of all classes.
        learner: `PromptLearner` of the base classes.
        run: `TrainingRun`, from whose newest state a stopped one goes on.

    Returns:
        tuned: CLIP with its additions, not merged.
        contexts: array (K, M, W), those in the queue.
    """
    config = run.config
    tuned, additions = with_lora(original, config.lora)
    labels = base_labels(data)  # (N,)
    tokens = [tokenize_prompts(original, prompts[label]) for label in data.base]
    views = Views(preprocess, 1, config.train.scale, config.seed, whole_first=False)
    batch_size = config.train.batch_size
    epoch_steps = math.ceil(len(labels) / batch_size)
    logit_scale = original.scale()
    paces = Paces(learner.context, additions, config, epoch_steps)
    at_once = images_at_once(tuned, learner, tokens, config.train)

    # The prompt's state every N epochs; the queue drops the oldest
    queue = PromptQueue(config.prompt.queue_length)
    first = run.resume(tuned, learner, queue, paces.optimizer)
    if not len(queue):  # nothing to go on from, whose queue has the start already
        queue.push(learner.context)
    run.log.begin("tune", first)
    for epoch in range(first, paces.n_epochs):
        paces.begin_epoch(epoch)
        # Every epoch has its own seed, so that one who goes on here draws the same.
        random = np.random.RandomState([config.seed, epoch])
        order = random.permutation(len(labels))
        meter = EpochMeter()
        batches = view_batches(views, [data.train[i].path for i in order], batch_size,
                               config.workers, f"epoch {epoch + 1}/{paces.n_epochs}",
                               keys=[f"{epoch}/{i}" for i in order])
        for step, (indices, pixels, bar) in enumerate(batches, start=epoch * epoch_steps):
            # A random crop of each image
            images = normalise(pixels[:, 0])  # (B, 1, S, S, 3) -> (B, 3, S, S)
            targets = labels[order[indices]]  # (B,)
            # Its classes, and drawn ones for all the others
            classes, counts = drawn_classes(targets, len(tokens), config.train.class_batch_size,
                                            random)  # (K,)
            targets = np.searchsorted(classes, targets)
            # By turns the learned prompt of each class, and one of its handcrafted ones
            if step % 2:
                drawn = np.stack([tokens[c][random.randint(len(tokens[c]))] for c in classes])
                encode = functools.partial(handcrafted_features, tuned, drawn)
            else:
                encode = functools.partial(learned_features, tuned, learner, classes)
            paces.set_rates(step)
            loss, logits = training_step(
                paces.optimizer, tuned, images, (encode, counts), targets, logit_scale,
                seed=[config.seed, step], n_parts=math.ceil(len(targets) / at_once))
            meter.add(loss, logits, targets, bar)
        meter.end()
        accuracy = meter.n_correct() / len(labels)
        log(f"epoch {epoch + 1}: loss {meter.loss():.4f}, "
            f"training accuracy {100 * accuracy:.1f} %")
        run.log.write(epoch=epoch + 1, step=step + 1, loss=meter.loss(), accuracy=accuracy,
                      images=len(labels), **paces.report(epoch))
        if epoch < config.prompt.epochs and (epoch + 1) % config.prompt.queue_every == 0:
            queue.push(learner.context)
        run.save_epoch(epoch + 1, paces.n_epochs, tuned, learner, queue, paces.optimizer)
    return tuned, queue.contexts()


def fit_heads(original, preprocess, data, prompts, learner, encoder, run):
    """Stage 2: what is fitted to, and noted of, frozen models' features of the images.

    Args:
        original: CLIP, frozen. preprocess: `jclip`'s.
        data: `Challenge`. prompts: list (C) of lists of handcrafted prompts of all classes.
        learner: `PromptLearner` of the base classes.
        encoder: auxiliary `Encoder`, or None.
        run: `TrainingRun`, of which stage 1 is done.

    Returns:
        the checkpoint's content, dict; None in all processes but the first.
    """
    # The tuned CLIP, LoRA merged into its weights
    config, stage_1 = run.config, run.stage_1()
    tuned = lora.tuned_clip(original, config.lora, stage_1["lora"], run.path("prompt_lora.pkl"))

    # What images are compared with: handcrafted prompts, for the tuned CLIP with the queue's
    base_prompts = [prompts[label] for label in data.base]
    tuned_text = classifier_features(tuned, learner, stage_1["contexts"], base_prompts,
                                     config.prompt.queue_weight)  # (C_base, D)
    text = class_features(original, prompts)  # (C, D)
    base_text = text[jt.array(data.base)]  # (C_base, D)

    # Frozen features: crops for the head, and images as testing looks at them
    look = Look(original, tuned, encoder, text, tuned_text, config)
    frozen = FrozenFeatures(look, preprocess, run)
    paths = [sample.path for sample in data.train]
    with run.log.timed("features"):
        crops = frozen.of_crops(paths)  # (N, V, D)
    with run.log.timed("base_features"):
        support = frozen.by_original(paths, base_prompts, base_text)  # (N, D)
    with run.log.timed("held_back_features"):
        held_back = frozen.held_back(data.validation, prompts)
    if encoder is not None:
        with run.log.timed("auxiliary_features"):
            aux_crops = frozen.auxiliary(paths)  # (N, V, A)
    if not parallel.is_first():
        return None

    # LP++ starts from the text, so hundreds of epochs take seconds
    labels = base_labels(data)  # (N,)
    heads = fit_lp_plus_plus(crops, labels, tuned_text, tuned.scale(), config, run.log)
    content = {**heads, "features": support, "labels": data.base[labels], **held_back}
    if encoder is not None:
        zero_shot = original.scale() * support @ base_text.numpy().T  # (N, C_base)
        # The first process is alone here; Jittor's optimizers would wait for the others.
        weight = jt.single_process_scope()(fit_auxiliary)(aux_crops, labels, zero_shot, config.aux,
                                                          run.log)
        content.update(aux_weight=weight, aux_encoder=encoder.fingerprint)
    return content


def base_labels(data):
    """The training images' labels among the base classes alone, 0 … C-1; `data.base` leads back."""
    return np.searchsorted(data.base, [sample.label for sample in data.train])


def with_lora(original, settings):
    """A CLIP that shares the original's weights, with LoRA: (model, list of its Vars).

    Args:
        settings: the config's section `lora`.
    """
    tuned, layers = lora.with_layers(original, settings)
    if layers and settings.init is not None:
        path = beside_scripts(settings.init)
        found = read_lora(path, tuned.sizes)
        lora.load_additions(tuned, found.additions, path)
        log(f"LoRA starts from {path} ({found.format})")
    return tuned, lora.parameters(layers)


def learned_features(tuned, learner, classes, rows):
    """Unit-norm features, Var (…, D), of the learned prompts of some rows of classes (K,)."""
    return learner.text_features(tuned, rows=classes[rows])


def handcrafted_features(tuned, drawn, rows):
    """Unit-norm features, Var (…, D), of some rows of tokens (K, L)."""
    return unit_norm(tuned.encode_text(drawn[rows]))


def training_step(optimizer, tuned, images, texts, targets, logit_scale, seed, n_parts=1):
    """One step on the loss of a batch of images against a prompt of each of some classes.

    Args:
        optimizer: of the learned prompt and LoRA.
        tuned: CLIP with LoRA.
        images: Var (B, 3, S, S).
        texts: (encode, counts): the function of `rows`, a slice of K classes, returns the features
            of their prompts, Var (…, D), unit norm; `drawn_classes` tells what each counts.
        targets: int array (B,), of K.
        logit_scale: float; asking the model for it would wait for the GPU.
        seed: list of integers, of dropout in this step.
        n_parts: in how many parts images and texts are encoded; more take less memory.

    Returns:
        loss: Var (1,), cross-entropy. logits: Var (B, K).
    """
    encode_texts, counts = texts

    def loss_of(image_features, text_features):
        logits = logit_scale * nn.matmul_transpose(image_features, text_features)  # (B, K)
        return nn.cross_entropy_loss(logits + jt.array(np.log(counts)), jt.array(targets)), logits

    passes = [(len(images), lambda rows: unit_norm(tuned.encode_image(images[rows]))),
              (len(counts), lambda rows: encode_texts(rows=rows))]
    return shared_batch.step(optimizer, tuned, passes, loss_of, seed, n_parts)


def sweep_over(arguments):
    """Train and test with every combination of --sweep."""
    if parallel.size() > 1:
        raise UserError("--sweep starts its runs itself; leave out mpirun")
    from runs.sweep import sweep  # here, as it loads matplotlib
    sweep(config_path(arguments.config, arguments.overrides), arguments.overrides,
          arguments.sweep, arguments.restart)


def parse():
    """The command line's arguments."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_settings()
    parser.add_argument("--images", type=home, metavar="DIR|CSV", help="own pictures: a folder of "
                        "class folders, or a CSV 'path,label'")
    parser.add_argument("--new-classes", type=home, metavar="FILE", help="with --images: names, "
                        "one a line, of classes without pictures")
    parser.add_argument("--stage", type=int, choices=(1, 2), help="only this one")
    parser.add_argument("--restart", action="store_true",
                        help="start over instead of going on from where a stopped run was")
    parser.add_argument("--sweep", nargs="+", metavar="key=value,value,…",
                        help="train and test with every combination (runs/sweep.py)")
    arguments = parser.read()
    if arguments.new_classes is not None and arguments.images is None:
        parser.error("--new-classes needs --images")
    if arguments.sweep and (arguments.images or arguments.stage):
        parser.error("--sweep trains and tests with a config: leave out --images and --stage")
    return arguments


def settings_of(arguments):
    """The `Config` to train with."""
    if arguments.images is None:
        return load_config(
            config_path(arguments.config, arguments.overrides, ("weights", "train")),
            arguments.overrides)
    config = own_pictures_config(arguments.images, arguments.new_classes, arguments.config,
                                 arguments.overrides)
    refuse_other_pictures(config.output.checkpoint_dir, arguments.images)
    return config


if __name__ == "__main__":
    run_to_the_end(
        main, "run the same command again; it goes on after the last finished epoch or part")
