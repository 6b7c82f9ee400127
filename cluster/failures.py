"""What may be said of a task that failed: the kind of error and its place, never its words.

An error's own words may quote a user's text, and a reason goes into studies, Tune's files and logs.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from cluster.trial import Event


def failed(error: Exception) -> Event:
    """The end of a task that raised."""
    return {"error": reason_of(error), "done": True}


def reason_of(error: BaseException) -> str:
    """The kind of an error and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def log_failure(log: logging.Logger, name: str, error: Exception) -> None:
    """The same with the whole trace."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed: %s\n%s", name, type(error).__name__, frames)


def packer_log(file: Path) -> logging.Logger:
    """A log in the run's folder, of this process alone."""
    logger = logging.getLogger("milpa.packer")
    handler = logging.FileHandler(file, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    while logger.handlers:
        earlier = logger.handlers[0]
        logger.removeHandler(earlier)
        earlier.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
