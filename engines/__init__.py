"""The documents' systems, rebuilt to be measured: a reference in numpy, and engines.

One framework a file. No file imports pytest.

This package is no part of the wheel: `engines` is too common a name to install into somebody's
site-packages, and the instrument (`perfsuite`) must work without it. Neither imports the other;
`conftest.py` hands the offers of `engines.offers` to the plugin.
"""
