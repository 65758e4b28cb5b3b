"""Whether arrays read from a file are a model's weights."""

from system.errors import UserError


def check_not_empty(path, state):
    """Refuse arrays without values, before sizes are read from them.

    Raises:
        UserError: the first of them.
    """
    for name, value in state.items():
        if 0 in value.shape:
            raise UserError(f"{path}: {name} is an empty array; get the file again")


def check_state(path, state, expected):
    """Compare names and shapes with a model's, strictly.

    Args:
        path: for the message.
        state: {name: array}.
        expected: {name: shape}.

    Raises:
        UserError: the first missing, extra or misshapen name, and how many there are.
    """
    def fail(kind, names, detail=""):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(f"{path} does not fit: {kind} {names[0]}{more}{detail}; "
                        "is it the file of another model?")

    missing = sorted(set(expected) - set(state))
    extra = sorted(set(state) - set(expected))
    misshapen = [name for name, shape in expected.items()
                 if name in state and (state[name].shape or (1,)) != tuple(shape)]
    if missing:
        fail("missing", missing)
    if extra:
        fail("unknown", extra)
    if misshapen:
        name = misshapen[0]
        fail("misshapen", misshapen, f" (is {state[name].shape}, not {tuple(expected[name])})")
