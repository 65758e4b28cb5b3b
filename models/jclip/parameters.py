"""Puts what a weights file holds into a model's parameters, and tells them by a checksum."""

import zlib

import jittor as jt
import numpy as np

from models.jclip.weights import check_state
from system.errors import UserError


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


def fingerprint(model):
    """A checksum of a model's weights and, if it is not OpenAI's, of its activation, int."""
    activation = getattr(getattr(model, "sizes", None), "activation", "quick_gelu")
    checksum = 0 if activation == "quick_gelu" else zlib.crc32(activation.encode())
    for _, parameter in model.named_parameters():
        checksum = zlib.crc32(np.ascontiguousarray(parameter.numpy()), checksum)
    return checksum
