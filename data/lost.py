"""Puts other images of their classes in the place of those that cannot be decoded."""

import collections
import warnings

from system.errors import UserError
from system.untrusted import shown


def in_place_of_lost(challenge, are_whole):
    """A `Challenge` whose images can all be decoded.

    In the place of one that cannot be comes the next of its class in the seed's order, which a
    warning tells; where there is none, or the shots are a file's, it is left out.

    Args:
        challenge: `Challenge`.
        are_whole: function of a list of `Sample`, not empty: whether each can be decoded.

    Raises:
        UserError: a class is left without training images.
    """
    known = {}  # so that none is decoded, and warned of, twice

    def whole(samples):
        new = [sample for sample in samples if sample not in known]
        if new:
            known.update(zip(new, are_whole(new)))
        return [known[sample] for sample in samples]

    train, lost = _replaced(challenge.train, challenge.spare, whole)
    left = {sample.label for sample in train}
    empty = next((label for label in challenge.base if label not in left), None)
    if empty is not None:
        raise UserError(f"the class {shown(challenge.classes[empty].name)}: none of its training "
                        "images can be decoded; replace one of them")
    _tell_lost("training", lost)
    taken = {new for _, new in lost}
    # What is trained on now is lost to the validation.
    validation, lost = _replaced(
        challenge.validation, challenge.spare_validation,
        lambda samples: [is_whole and sample not in taken
                         for sample, is_whole in zip(samples, whole(samples))])
    _tell_lost("validation", [pair for pair in lost if pair[0] not in taken])
    return challenge._replace(train=train, validation=validation, held_back=[
        sample for sample in challenge.held_back if sample not in taken])


def _replaced(samples, spare, are_whole):
    """Samples with spare ones in the place of lost ones, and the list of (lost, spare or None)."""
    waiting = {}
    for sample in spare:
        waiting.setdefault(sample.label, collections.deque()).append(sample)
    found, unknown = list(samples), list(range(len(samples)))
    while unknown:
        whole = are_whole([found[place] for place in unknown])
        unknown = [place for place, is_whole in zip(unknown, whole) if not is_whole]
        for place in unknown:
            others = waiting.get(samples[place].label)
            found[place] = others.popleft() if others else None
        unknown = [place for place in unknown if found[place] is not None]
    return ([sample for sample in found if sample is not None],
            [(old, new) for old, new in zip(samples, found) if old != new])


def _tell_lost(kind, lost):
    """Warn of images that cannot be decoded, list of (sample, the one in its place or None)."""
    replaced = [(old, new) for old, new in lost if new is not None]
    alone = [old for old, new in lost if new is None]
    if replaced:
        old, new = replaced[0]
        warnings.warn(f"{len(replaced)} {kind} images that cannot be decoded are replaced by the "
                      f"next of their classes, such as {old.path} by {new.path}", stacklevel=3)
    if alone:
        warnings.warn(f"{len(alone)} {kind} images that cannot be decoded are left out, such as "
                      f"{alone[0].path}, as there is no other to take", stacklevel=3)
