"""Puts what a weights file holds into a model's parameters."""

import jittor as jt
import numpy as np

from models.errors import UserError
from models.jclip.weights import check_state


def fill(path, model, state):
    """Give every parameter its values, strictly.

    Args:
        path: for messages.
        model: Jittor module.
        state: {name: array}; emptied, so that nothing is held twice.

    Raises:
        UserError: names or shapes do not fit, or a value is not finite.
    """
    parameters = dict(model.named_parameters())
    check_state(path, state, {name: p.shape for name, p in parameters.items()})
    # One at a time, so that they are not held twice. A sync between them would compute the
    # initial values of all the others.
    for name, parameter in parameters.items():
        values = as_float32(state.pop(name))
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {name} has values that are not finite; get the file again")
        parameter.update(jt.array(values))


def as_float32(value):
    """An array as models take it: float32, and of one axis at least, as all of Jittor's are."""
    return np.atleast_1d(np.asarray(value)).astype(np.float32, copy=False)
