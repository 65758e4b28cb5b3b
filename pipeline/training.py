"""What surrounds a training: its folder and lock, its states to resume from, its optimizer's paces.

train.py has the method; here is what makes it stop and go on, alone or as one of several processes.
"""

import math
import os

import jittor as jt
import numpy as np

from data.lost import in_place_of_lost
from data.sources import load_data
from data.views import decode, read_ahead
from models import lora, shared_batch
from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.checkpoint_parts import check_parts
from pipeline.training_state import (
    EpochStates,
    distance,
    load_optimizer_state,
    optimizer_state,
)
from system import parallel
from system.errors import UserError, log
from system.lock import output_lock

# The settings that stage 1 depends on.
STAGE_1 = ("seed", "data.shots", "data.shots_file", "prompts", "prompt", "lora", "train")


def decodable_data(config, library):
    """The run's `Challenge`, with others of their class for images that cannot be decoded.

    A warning names each of these; see `data.lost.in_place_of_lost`.

    Args:
        config: the run's `Config`. library: `PromptLibrary`.
    """
    def are_whole(samples):
        own = samples[parallel.own_slice(len(samples))]
        with parallel.own_work():
            found = list(read_ahead(lambda sample: decode(sample.path) is not None, own,
                                    config.workers, ahead=8))
        return parallel.gather(np.array(found, np.int32), len(samples)).astype(bool)

    data = in_place_of_lost(load_data(config.data, config.seed, library), are_whole)
    log(f"{len(data.base)} base classes with {len(data.train)} images "
        f"(data.shots={config.data.shots}), {len(data.validation)} more for the temperature "
        f"(data.val_shots={config.data.val_shots}), {len(data.new)} new classes")
    return data


class TrainingRun:
    """The folder of a training: checkpoints of its stages, and states of an unfinished one.

    Of several processes the first alone writes.

    Args:
        config: the run's `Config`; output.checkpoint_dir is the folder.
        made_with: `pipeline.checkpoint.made_with`; what was made with other settings, weights or
            data is refused.
        sizes: `CLIPSizes` of the model.
        log: `runs.log.RunLog`.
        restart: whether all is computed anew.
    """

    def __init__(self, config, made_with, sizes, log, restart=False):
        self.config = config
        self.folder = config.output.checkpoint_dir
        self.made_with = made_with
        self.sizes = sizes
        self.log = log
        self.restart = restart
        self.states = EpochStates(self.path("unfinished"), made_with, STAGE_1, sizes)

    def lock(self):
        """A context in which no other run may write here."""
        return output_lock(self.path("train.lock"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def save(self, name, content):
        """Write a stage's checkpoint."""
        if parallel.is_first():
            save_checkpoint(self.path(name), self.made_with, content)

    def stage_1(self):
        """What stage 1 left: {'lora': state, 'contexts': array (K, M, W)}.

        Raises:
            UserError: nothing, of another training, or a newer one is unfinished.
        """
        state = self.states.newest()
        if state is not None and state["epoch"] < state["n_epochs"]:
            raise UserError(f"stage 1 was stopped after epoch {state['epoch']} of "
                            f"{state['n_epochs']}; finish it first: train.py --stage 1")
        path = self.path("prompt_lora.pkl")
        content = load_checkpoint(path, self.made_with, STAGE_1)
        check_parts(path, content, ("lora", "contexts"), self.sizes)
        return content

    def resume(self, tuned, learner, queue, optimizer):
        """Take everything that learns from the newest state; the epochs done, 0 without one."""
        if self.restart:
            parallel.first_then_others(self.states.remove)
        state = self.states.newest()
        if state is None:
            return 0
        learner.context.update(jt.array(state["context"]))
        lora.load_lora_state(tuned, state["lora"], self.states.folder)
        load_optimizer_state(optimizer, state.get("optimizer"), self.states.folder)
        for context in state["queue"]:
            queue.push(context)
        log(f"going on after epoch {state['epoch']} of {state['n_epochs']} "
            f"({self.states.folder})")
        return state["epoch"]

    def save_epoch(self, epoch, n_epochs, tuned, learner, queue, optimizer):
        """Write the state that `resume` takes."""
        self.states.save(epoch, {
            "n_epochs": n_epochs, "context": learner.context.numpy(), "queue": queue.contexts(),
            "lora": lora.lora_state(tuned), "optimizer": optimizer_state(optimizer)})

    def finish(self):
        """Both stages are done: no state is needed any more."""
        if parallel.is_first():
            self.states.remove()
            log(f"trained: {self.folder}")


class Paces:
    """AdamW over the learned prompt and LoRA, each on a cosine schedule of its own.

    Args:
        context: Var (M, W), the learned prompt.
        additions: list of LoRA's Vars, maybe empty.
        config: the run's `Config`.
        epoch_steps: steps of an epoch.

    Attributes:
        optimizer: `jt.optim.AdamW`.
        n_epochs: after these nothing learns any more.
    """

    def __init__(self, context, additions, config, epoch_steps):
        self.n_epochs = config.train.epochs
        self._prompt_epochs, self._settings = config.prompt.epochs, config
        self._epoch_steps = epoch_steps
        self._context = context
        context.start_grad()
        self._parts = {"prompt": [context]}
        groups = [{"params": [context], "weight_decay": 0.0}]
        if additions:
            self._parts["lora"] = additions
            groups.append({"params": additions, "weight_decay": config.lora.weight_decay})
        else:
            self.n_epochs = min(self.n_epochs, config.prompt.epochs)
        self.optimizer = jt.optim.AdamW(groups, lr=0.0)
        self._groups = dict(zip(self._parts, groups))
        self._start = {part: _arrays(values) for part, values in self._parts.items()}

    def begin_epoch(self, epoch):
        """The prompt is frozen once its rate has come to 0; LoRA goes on."""
        if epoch >= self._prompt_epochs:
            self._context.stop_grad()

    def set_rates(self, step):
        """The learning rates of a step, counted from the training's start."""
        self._groups["prompt"]["lr"] = cosine(step, self._prompt_epochs * self._epoch_steps,
                                              self._settings.prompt.lr, 0.0)
        if "lora" in self._parts:
            self._groups["lora"]["lr"] = cosine(step, self.n_epochs * self._epoch_steps,
                                                self._settings.lora.lr, self._settings.lora.min_lr)

    def report(self, epoch):
        """{'lr_…': rate, 'moved_…': distance from the start} of each part that learns."""
        learning = [part for part in self._parts if part == "lora" or epoch < self._prompt_epochs]
        return {**{f"lr_{part}": self._groups[part]["lr"] for part in learning},
                **{f"moved_{part}": distance(_arrays(self._parts[part]), self._start[part])
                   for part in learning}}


def images_at_once(tuned, learner, tokens, settings):
    """How many images of a batch, and texts with them, the memory holds at a time.

    Args:
        settings: the config's section `train`.
    """
    longest = max(int(rows.argmax(axis=1).max()) + 1 for rows in tokens)
    # As many as `models.sampled_classes.drawn_classes` has at most.
    n_texts = min(len(tokens), max(settings.class_batch_size, settings.batch_size + 1))
    return shared_batch.fitting_batch(settings.batch_size, tuned.sizes.bytes_to_train(
        settings.batch_size, n_texts * max(learner.length, longest)))


def _arrays(parameters):
    return [parameter.numpy() for parameter in parameters]


def cosine(step, n_steps, start, end):
    """The cosine schedule at a step: `start` at 0, `end` at the last one and after it."""
    progress = min(1.0, step / max(1, n_steps - 1))
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class EpochMeter:
    """Loss and accuracy over an epoch, each step's read when the next is under way.

    So a GPU has the next step to work on meanwhile.
    """

    def __init__(self):
        self._outcomes, self._pending = [], None

    def add(self, loss, logits, targets, bar):
        """A step's loss, Var, and logits, Var (B, C); the mean so far is shown on the bar."""
        if self._pending:
            self._read()
            bar.set_postfix(loss=f"{self.loss():.3f}")
        self._pending = loss, logits, targets

    def end(self):
        """Read the last step, too."""
        self._read()

    def loss(self):
        return np.mean([loss for loss, _ in self._outcomes])

    def n_correct(self):
        return sum(n for _, n in self._outcomes)

    def _read(self):
        loss, logits, targets = self._pending
        self._outcomes.append((loss.item(),
                               int((logits.numpy().argmax(axis=1) == targets).sum())))
