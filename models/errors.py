"""What a user can mend: one exception, and the way scripts end on it."""

import errno
import sys
import warnings


class UserError(Exception):
    """A mistake of the user's: the message is one line that names the thing and the cure."""


def run_script(main):
    """Run a script's `main()`; a `UserError` ends it in one line on stderr and exit code 2.

    So does a full disk. Ctrl-C ends it in one line, the interrupt's own where it has one, and
    exit code 130.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error}; make room and run the same command again", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        sys.exit(130)


def show_warnings_in_one_line():
    """Have scripts print 'warning: …' without the place in the source."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
