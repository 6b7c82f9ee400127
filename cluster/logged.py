"""Whether what this process prints becomes one of Ray's logs: a submitted job's output does.

A log names nobody and quotes nobody, where a person at a terminal is shown what is wrong.
"""

from __future__ import annotations

import os

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in a submitted job's process


def output_is_logged() -> bool:
    """Whether it does."""
    return _JOB in os.environ
