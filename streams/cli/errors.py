"""What ends a command: the outside failed. Everything else is a bug and is reported as one.

CommandError          the command cannot do what it was asked; the message says why and what to do
"""

from __future__ import annotations


class CommandError(Exception):
    """One line for people; `dpme` prints it to stderr and exits with 1."""
