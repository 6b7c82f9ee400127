"""A process of milpa's: how it is set up, how it breaks off, and whether its output becomes a log.

What it writes names people and quotes them, so it is its owner's alone. A person at a terminal is
shown what is wrong with the data; a submitted job's output is a log, which quotes nobody.
"""

from __future__ import annotations

import os

from models.lines import QUOTES

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in a submitted job's process


class BrokeOff(RuntimeError):  # noqa: N818
    """The work broke off for a reason that its words tell; what it did is kept."""


def set_up() -> None:
    """Sets up a command's process, before torch is loaded."""
    # Threads that spin while they wait take the cores from all others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.umask(0o077)  # Ray's own files too: its token would be everybody's to read
    if output_is_logged():
        os.environ[QUOTES] = "no"


def output_is_logged() -> bool:
    """Whether what this process prints becomes a log: a submitted job's output does."""
    return _JOB in os.environ
