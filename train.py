"""Trains the learned prompt, LoRA and the head on a few images a class.

    python train.py [--config configs/photos.yaml] [--stage 1|2] [key=value …]
    python train.py --images DIR|CSV [--new-classes FILE] …     (own pictures)
    python train.py … --sweep seed=1,2,3 lora.rank=2,4,8        (a grid of runs: runs/sweep.py)
    mpirun --bind-to none -np N python train.py …               (N processes: models/parallel.py)

Stage 1 tunes CLIP: a learned prompt (CoOp, Zhou et al. 2021, arXiv 2109.01134) and LoRA in
its encoders (Zanella and Ben Ayed 2024, arXiv 2405.18541). Stage 2 fits the head (LP++, Huang
et al. 2024, arXiv 2404.02285) on the tuned model's frozen features, and notes how the
original CLIP sees the training images, for judging all test images together, and how both see
images that were not trained on, from which test.py has its temperatures. With aux.weights it also
fits AMU-Tuning's head (Tang et al. 2024, arXiv 2404.08958). Without --stage it does both.
"""

import math
import os
import sys

from models import runtime
from models.errors import UserError, run_script, run_to_the_end

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

import jittor as jt
import numpy as np
from jittor import nn

from configs import format_config, load_config, own_pictures_config
from configs.choice import config_path
from configs.command_line import Parser
from configs.places import beside_scripts, home, require_writable
from data.lost import in_place_of_lost
from data.sample import ensure_sample, is_sample, to_draw
from data.sources import load_data
from data.views import Views, decode, read_ahead, view_batches
from models import auxiliary, jclip, lora, parallel, shared_batch
from models.checkpoint import (
    fingerprint,
    load_checkpoint,
    made_with,
    refuse_other_pictures,
    save_checkpoint,
)
from models.checkpoint_parts import check_parts
from models.heads import fit_heads
from models.jclip.model import unit_norm
from models.jclip.preprocess import normalise
from models.lock import output_lock
from models.lora_files import read_lora
from models.prompt import (
    PromptLearner,
    PromptQueue,
    handcrafted_prompts,
    tokenize_prompts,
)
from models.training_state import EpochStates, load_optimizer_state, optimizer_state
from prompts import PromptLibrary
from runs.log import RunLog, distance

# What a state or a checkpoint of stage 1 depends on.
STAGE_1 = ("seed", "data.shots", "data.shots_file", "prompts", "prompt", "lora", "train")


def main():
    arguments = parse()
    if arguments.sweep:
        if parallel.size() > 1:
            raise UserError("--sweep starts its runs itself; leave out mpirun")
        from runs.sweep import sweep  # here, as it loads matplotlib
        sweep(config_path(arguments.config, arguments.overrides), arguments.overrides,
              arguments.sweep, arguments.restart)
        return
    config = settings_of(arguments)
    data = config.data
    log(format_config(config))
    require_writable({"output.checkpoint_dir": config.output.checkpoint_dir,
                      "output.cache_dir": config.output.cache_dir, **to_draw(data)})
    runtime.use_accelerator(config.device)
    library = PromptLibrary(config.prompts.dir)
    np.random.seed(config.seed)  # LoRA's start
    model, preprocess = jclip.load(beside_scripts(config.clip.weights), config.clip.activation)
    lora.freeze(model)
    encoder = auxiliary.load_encoder(config.aux.weights, preprocess.image_size)
    if is_sample(data):  # only now, when what can be wrong without it has been looked at
        parallel.first_then_others(lambda: ensure_sample(data.root))
    challenge = with_decodable(load_data(data, config.seed, library), config.workers)
    log(f"{len(challenge.base)} base classes with {len(challenge.train)} images "
        f"(data.shots={data.shots}), {len(challenge.validation)} more for the temperature "
        f"(data.val_shots={data.val_shots}), {len(challenge.new)} new classes")

    base_classes = [challenge.classes[label] for label in challenge.base]
    prompts = handcrafted_prompts(library, base_classes, config.prompts)
    learner = PromptLearner(model, [library.name(c) for c in base_classes], config.prompt.init)
    # Labels of the base classes alone, 0 … C-1; `challenge.base` leads back.
    labels = np.searchsorted(challenge.base, [sample.label for sample in challenge.train])
    paths = [sample.path for sample in challenge.train]
    origin = made_with(config, fingerprint(model), challenge.classes, challenge.train)

    folder = config.output.checkpoint_dir
    run_log = RunLog(folder)
    stage_1_path = os.path.join(folder, "prompt_lora.pkl")
    with output_lock(os.path.join(folder, "train.lock")):
        states = EpochStates(os.path.join(folder, "unfinished"), origin, STAGE_1,
                             model.sizes)
        if arguments.stage != 2:
            if arguments.restart:
                parallel.first_then_others(states.remove)
            with runtime.mixed_precision(config.train.amp):
                contexts = tune(model, learner, preprocess, paths, labels, prompts, config,
                                states, run_log)
            stage_1 = {"lora": lora.lora_state(model), "contexts": contexts}
            if parallel.is_first():
                save_checkpoint(stage_1_path, origin, stage_1)
            parallel.barrier()
        if arguments.stage != 1:
            require_finished(states)
            stage_1 = load_checkpoint(stage_1_path, origin, STAGE_1)
            check_parts(stage_1_path, stage_1, ("lora", "contexts"), model.sizes)
            contents = fit_heads(stage_1, stage_1_path, challenge, library, learner, labels,
                                 encoder, origin["clip"], config, arguments.restart, run_log)
            if parallel.is_first():
                for name, content in contents.items():
                    save_checkpoint(os.path.join(folder, name), origin, content)
                states.remove()
                log(f"trained: {folder}")


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


def with_decodable(challenge, n_threads):
    """The `Challenge` with others of their class for images that cannot be decoded.

    A warning has named each of these; see `data.lost.in_place_of_lost`.
    """
    def are_whole(samples):
        own = samples[parallel.share(len(samples))]
        with parallel.own_work():
            found = list(read_ahead(lambda sample: decode(sample.path) is not None, own,
                                    n_threads, ahead=8))
        return parallel.gather(np.array(found, np.int32), len(samples)).astype(bool)

    return in_place_of_lost(challenge, are_whole)


def tune(model, learner, preprocess, paths, labels, prompts, config, states, run_log):
    """Stage 1: train the learned prompt and LoRA, both in place.

    Args:
        model: CLIP, frozen; gets its low-rank additions.
        learner: `PromptLearner` of the base classes.
        preprocess: `jclip`'s.
        paths: list (N) of training images.
        labels: int array (N,).
        prompts: list (C) of lists of handcrafted prompts.
        config: the run's.
        states: `EpochStates`; a stopped training goes on from its newest.
        run_log: `RunLog`.

    Returns:
        array (K, M, W), the contexts in the queue.
    """
    settings, n_epochs = config.train, config.train.epochs
    layers = []
    if config.lora.encoder != "none":
        layers = lora.apply_lora(model, config.lora.encoder, config.lora.params,
                                 config.lora.rank, config.lora.alpha, config.lora.dropout,
                                 config.lora.positions)
        if config.lora.init is not None:
            path = beside_scripts(config.lora.init)
            found = read_lora(path, model.sizes)
            lora.load_additions(model, found.additions, path)
            log(f"LoRA starts from {path} ({found.format})")
    else:
        n_epochs = min(n_epochs, config.prompt.epochs)  # nothing learns after these
    learner.context.start_grad()
    groups = [{"params": [learner.context], "weight_decay": 0.0}]
    if layers:
        groups.append({"params": lora.parameters(layers),
                       "weight_decay": config.lora.weight_decay})
    optimizer = jt.optim.AdamW(groups, lr=0.0)
    queue = PromptQueue(config.prompt.queue_length)
    parts = {"prompt": [learner.context]}
    if layers:
        parts["lora"] = lora.parameters(layers)
    start = {part: arrays(parameters) for part, parameters in parts.items()}
    first = go_on(states, model, learner, optimizer, queue)
    if not len(queue):  # nothing to go on from, whose queue has the start already
        queue.push(learner.context)
    tokens = [tokenize_prompts(model, texts) for texts in prompts]
    views = Views(preprocess, 1, settings.scale, config.seed, whole_first=False)
    logit_scale = model.scale()
    epoch_steps = math.ceil(len(labels) / settings.batch_size)
    longest = max(int(rows.argmax(axis=1).max()) + 1 for rows in tokens)
    at_once = shared_batch.fitting_batch(settings.batch_size, model.sizes.bytes_to_train(
        settings.batch_size, len(tokens) * (learner.length + longest)))

    run_log.begin("tune", first)
    for epoch in range(first, n_epochs):
        if epoch >= config.prompt.epochs:
            learner.context.stop_grad()  # its rate has come to 0; LoRA goes on
        # Every epoch has its own seed, so that one who goes on here draws the same.
        random = np.random.RandomState([config.seed, epoch])
        order = random.permutation(len(labels))
        outcomes = []  # loss and number of right answers of each step
        batches = view_batches(views, [paths[i] for i in order], settings.batch_size,
                               config.workers, f"epoch {epoch + 1}/{n_epochs}",
                               keys=[f"{epoch}/{i}" for i in order])
        for step, (indices, pixels, bar) in enumerate(batches, start=epoch * epoch_steps):
            groups[0]["lr"] = cosine(step, config.prompt.epochs * epoch_steps,
                                     config.prompt.lr, 0.0)
            if layers:
                groups[1]["lr"] = cosine(step, n_epochs * epoch_steps, config.lora.lr,
                                         config.lora.min_lr)
            targets = labels[order[indices]]
            drawn = np.stack([rows[random.randint(len(rows))] for rows in tokens])
            loss, logits = training_step(
                optimizer, model, learner, normalise(pixels[:, 0]), drawn, targets, logit_scale,
                seed=[config.seed, step], n_parts=math.ceil(len(targets) / at_once))
            outcomes.append((loss, logits, targets))
            if len(outcomes) > 1:  # a step late, so that a GPU has the next to work on
                outcomes[-2] = outcome(*outcomes[-2])
                bar.set_postfix(loss=f"{np.mean([loss for loss, _ in outcomes[:-1]]):.3f}")
        outcomes[-1] = outcome(*outcomes[-1])
        loss, n_correct = np.mean([loss for loss, _ in outcomes]), sum(n for _, n in outcomes)
        log(f"epoch {epoch + 1}: loss {loss:.4f}, "
            f"training accuracy {100 * n_correct / len(labels):.1f} %")
        learning = {part: group["lr"] for part, group in zip(parts, groups)
                    if part == "lora" or epoch < config.prompt.epochs}
        run_log.write(
            epoch=epoch + 1, step=step + 1, loss=loss,
            accuracy=n_correct / len(labels), images=len(labels),
            **{f"lr_{part}": lr for part, lr in learning.items()},
            **{f"moved_{part}": distance(arrays(parts[part]), start[part]) for part in learning})
        if epoch < config.prompt.epochs and (epoch + 1) % config.prompt.queue_every == 0:
            queue.push(learner.context)
        states.save(epoch + 1, {
            "n_epochs": n_epochs, "context": learner.context.numpy(), "queue": queue.contexts(),
            "lora": lora.lora_state(model), "optimizer": optimizer_state(optimizer)})
    return queue.contexts()


def arrays(parameters):
    return [parameter.numpy() for parameter in parameters]


def go_on(states, model, learner, optimizer, queue):
    """Take everything that learns from the newest state; the epochs done, 0 without one."""
    state = states.newest()
    if state is None:
        return 0
    learner.context.update(jt.array(state["context"]))
    lora.load_lora_state(model, state["lora"], states.folder)
    load_optimizer_state(optimizer, state.get("optimizer"), states.folder)
    for context in state["queue"]:
        queue.push(context)
    log(f"going on after epoch {state['epoch']} of {state['n_epochs']} ({states.folder})")
    return state["epoch"]


def require_finished(states):
    """Refuse to go on to stage 2 from an earlier stage 1 while a newer one is half-way."""
    state = states.newest()
    if state is not None and state["epoch"] < state["n_epochs"]:
        raise UserError(f"stage 1 was stopped after epoch {state['epoch']} of "
                        f"{state['n_epochs']}; finish it first: train.py --stage 1")


def training_step(optimizer, model, learner, images, drawn, targets, logit_scale, seed, n_parts=1):
    """One step on the mean loss over the learned and a handcrafted prompt of each class.

    Args:
        optimizer: of the learned prompt and LoRA.
        model: CLIP. learner: `PromptLearner` of the classes.
        images: Var (B, 3, S, S).
        drawn: int32 array (C, L), tokens of the handcrafted prompts.
        targets: int array (B,).
        logit_scale: float.
        seed: list of integers, of dropout in this step.
        n_parts: in how many parts images and texts are encoded; more take less memory.

    Returns:
        loss: Var (1,), cross-entropy.
        logits: Var (B, C), the sum of both prompts'.
    """
    def loss_of(image_features, *features_of_texts):
        logits = [logit_scale * nn.matmul_transpose(image_features, text_features)
                  for text_features in features_of_texts]  # (B, C)
        loss = sum(nn.cross_entropy_loss(each, jt.array(targets)) for each in logits) / 2
        return loss, sum(logits)

    passes = [(len(images), lambda rows: unit_norm(model.encode_image(images[rows]))),
              (len(drawn), lambda rows: learner.text_features(model, rows=rows)),
              (len(drawn), lambda rows: unit_norm(model.encode_text(drawn[rows])))]
    return shared_batch.step(optimizer, model, passes, loss_of, seed, n_parts)


def outcome(loss, logits, targets):
    """The loss of a step, and how many answers were right; waits for what is computed."""
    return loss.item(), int((logits.numpy().argmax(axis=1) == targets).sum())


def cosine(step, n_steps, start, end):
    """The cosine schedule at a step: `start` at 0, `end` at the last one and after it."""
    progress = min(1.0, step / max(1, n_steps - 1))
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def log(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_to_the_end(
        main, "run the same command again; it goes on after the last finished epoch or part")
