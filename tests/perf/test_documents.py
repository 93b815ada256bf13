"""The documents' suite on this repository's engines."""

from perfsuite.suite import *  # noqa: F403 - the suite is meant to be taken whole
