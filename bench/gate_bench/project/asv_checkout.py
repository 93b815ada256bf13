"""An environment for asv that builds nothing: this interpreter with the commit's checkout.

asv's own "existing" environment can not switch commits, and the ones that can install packages
from the network for every commit. The subject is one Python file, so its checkout is enough.
"""

import os
import sys
from pathlib import Path

from asv import util
from asv.environment import Environment


class Checkout(Environment):
    """Chosen by `"environment_type": "checkout"`."""

    tool_name = "checkout"
    installed_commit_hash = None  # never sure: every round checks its commit out

    def __init__(self, conf, python, requirements, tagged_env_vars):
        self._requirements = requirements  # the base class names the folder by it
        super().__init__(conf, python, requirements, tagged_env_vars)

    @classmethod
    def matches(cls, python):
        """Any: there is one interpreter."""
        return bool(python)

    def check_presence(self):
        """Nothing is installed, so nothing can be missing."""
        return Path(self._path).is_dir()

    def _setup(self):
        Path(self._path).mkdir(parents=True)

    def install_project(self, conf, repo, commit_hash):  # noqa: ARG002
        """The commit's files, where `run` finds them."""
        self.checkout_project(repo, commit_hash)

    def run(self, args, env=None, **kwargs):
        """Our own interpreter, with the checkout before everything else on its path."""
        env = dict(env or os.environ)
        env["ASV_PYTHONPATH"] = os.pathsep.join([self._build_root, os.environ["PYTHONPATH"]])
        return util.check_output([sys.executable, *args], env=env, **kwargs)
