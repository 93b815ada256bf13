"""The parts of `bench/gate.py`."""
