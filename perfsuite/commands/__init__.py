"""The commands of `python -m perfsuite`, a module each; see `perfsuite/__main__.py`."""
