"""The state of a training after each epoch, so that a stopped one goes on from the last of them."""

import glob
import os
import shutil
import warnings

import jittor as jt
import numpy as np

from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.checkpoint_parts import check_parts
from system import parallel
from system.errors import DamagedFile, UserError

KEPT = 2  # the newest may be damaged, as by a power cut
_MOMENTS = ("m", "values")  # AdamW's
_PARTS = ("lora", "context", "queue")
_CURE = "start over with --restart"


class EpochStates:
    """A folder with the newest states of a training, which is removed when all is done.

    The first process alone changes it.

    Args:
        folder: where they lie.
        made_with: `pipeline.checkpoint.made_with`; a state of another is refused.
        keys: sections of the config, or single settings, that must be the same.
        sizes: `models.jclip.sizes.CLIPSizes` of the model.
    """

    def __init__(self, folder, made_with, keys, sizes):
        self.folder = folder
        self.made_with = made_with
        self.keys = keys
        self.sizes = sizes

    def newest(self):
        """The content of the newest state that is whole, None where there is none.

        Raises:
            UserError: it was made with other settings, weights or data, or holds what
                training does not leave.
        """
        for path in reversed(self._paths()):
            try:
                state = load_checkpoint(path, self.made_with, self.keys,
                                        cure=f"set them back, or {_CURE}")
                check_parts(path, state, _PARTS, self.sizes, cure=_CURE)
                if [type(state.get(name)) for name in ("epoch", "n_epochs")] != [int, int]:
                    raise UserError(f"{path} does not tell its epoch; {_CURE}")
                return state
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


def load_optimizer_state(optimizer, state, path):
    """Put `optimizer_state` back into an optimizer of the same parameters.

    Raises:
        UserError: it is of other parameters; `path` is named in it.
    """
    if not isinstance(state, dict) or type(state.get("n_step")) is not int or any(
            _shapes(state.get(name)) != _shapes([group[name] for group in optimizer.param_groups])
            for name in _MOMENTS):
        raise UserError(f"{path} is damaged: its optimizer's state is of other parameters; "
                        f"{_CURE}")
    optimizer.n_step = state["n_step"]
    for name in _MOMENTS:
        for group, saved in zip(optimizer.param_groups, state[name]):
            for moment, array in zip(group[name], saved):
                moment.update(jt.array(array).stop_grad())


def _shapes(moments):
    """The shapes in nested lists; None in the place of what is no float32."""
    if isinstance(moments, list):
        return [_shapes(each) for each in moments]
    if isinstance(moments, (np.ndarray, jt.Var)) and moments.dtype == "float32":
        return tuple(moments.shape)
    return None


def distance(arrays, start):
    """Euclidean distance of a list of arrays from another, as of one long vector each."""
    return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(arrays, start))))
