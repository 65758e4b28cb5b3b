"""The state of a training after each epoch, so that a stopped one goes on from the last of them."""

import glob
import os
import shutil
import warnings

import jittor as jt

from models import parallel
from models.checkpoint import load_checkpoint, save_checkpoint
from models.errors import DamagedFile

KEPT = 2  # the newest may be damaged, as by a power cut
_MOMENTS = ("m", "values")  # AdamW's


class EpochStates:
    """A folder with the newest states of a training, which is removed when all is done.

    The first process alone changes it.

    Args:
        folder: where they lie.
        made_with: `models.checkpoint.made_with`; a state of another is refused.
        keys: sections of the config, or single settings, that must be the same.
    """

    def __init__(self, folder, made_with, keys):
        self.folder = folder
        self.made_with = made_with
        self.keys = keys

    def newest(self):
        """The content of the newest state that is whole, None where there is none.

        Raises:
            UserError: it was made with other settings, weights or data.
        """
        for path in reversed(self._paths()):
            try:
                return load_checkpoint(path, self.made_with, self.keys,
                                       cure="set them back, or start over with --restart")
            except DamagedFile as error:
                warnings.warn(f"{error}; going on from the state before it", stacklevel=2)
        return None

    def save(self, epoch, content):
        """Write the state after an epoch, and remove those that are not needed any more."""
        if not parallel.is_first():
            return
        save_checkpoint(os.path.join(self.folder, f"epoch_{epoch:05d}.pkl"), self.made_with,
                        {"epoch": epoch, **content})
        for path in self._paths()[:-KEPT]:
            os.remove(path)

    def remove(self):
        """Remove all states: the training is finished, or starts over."""
        if parallel.is_first():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self):
        return sorted(glob.glob(os.path.join(glob.escape(self.folder), "epoch_*.pkl")))


def optimizer_state(optimizer):
    """What a `jt.optim.AdamW` has learned: arrays, in the order of its parameters."""
    return {"n_step": optimizer.n_step,
            **{name: [[moment.numpy() for moment in group[name]]
                      for group in optimizer.param_groups] for name in _MOMENTS}}


def load_optimizer_state(optimizer, state):
    """Put `optimizer_state` back into an optimizer of the same parameters."""
    optimizer.n_step = state["n_step"]
    for name in _MOMENTS:
        for group, saved in zip(optimizer.param_groups, state[name]):
            for moment, array in zip(group[name], saved):
                moment.update(jt.array(array).stop_grad())
