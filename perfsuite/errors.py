"""The errors that a user can meet, as a tree.

PerfError                    what happened, what was found, what was expected, the remedy
├── OptionError              a command line, ini or marker value that cannot be used
├── BaselineError            a baseline file that cannot be read or written; it stays as it was
├── EngineUnavailable        an engine or device that was asked for is not there
├── WorkerLost               the process that held the engine died, hung or did not start
└── Void                     the contract of a measurement was broken: the figure means nothing
"""

from __future__ import annotations


class PerfError(Exception):
    """A failure that is the user's to mend; its text is complete without a traceback."""


class OptionError(PerfError):
    """An option, ini value or marker argument that cannot be used."""


class BaselineError(PerfError):
    """A baseline file that cannot be read or written."""


class EngineUnavailable(PerfError):
    """What was asked for by name does not exist here."""


class WorkerLost(PerfError):
    """The worker process died, hung, or never came up."""


class Void(PerfError):
    """A measurement whose contract was broken; its numbers are not used."""
