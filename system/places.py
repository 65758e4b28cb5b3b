"""Where files lie: the project's beside the scripts, the user's in the working folder."""

import os

from system.errors import UserError

MAIN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # of the scripts


def home(path):
    """A path whose `~` or `~user` is a home folder, as a shell would have it."""
    return os.path.expanduser(path)


def beside_scripts(path):
    """Where a config, prompts or weights lie that a relative path names.

    What is there in the working folder wins; else the project's own, beside the scripts, serves
    from any working folder.
    """
    beside = os.path.join(MAIN_FOLDER, path)
    return beside if not os.path.exists(path) and os.path.exists(beside) else path


def require_writable(folders):
    """Refuse to start on hours of work whose results could not be written.

    Args:
        folders: {what moves it, a setting or an option of the command line: folder, which may
            have to be made}.

    Raises:
        UserError: names all that cannot be written, and what moves each.
    """
    closed = {by: folder or "." for by, folder in folders.items() if not _can_be_written(folder)}
    if closed:
        cures = (f"{by} FILE" if by == "--output" else f"{by}=FOLDER" for by in closed)
        raise UserError(f"cannot write to {', '.join(dict.fromkeys(closed.values()))}; make that "
                        f"writable, or name another place: {' '.join(cures)}")


def _can_be_written(folder):
    folder = os.path.abspath(folder)
    while not os.path.lexists(folder):  # it is to be made in the first one that is there
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
