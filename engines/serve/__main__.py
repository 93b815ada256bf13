"""The command: `python -m engines.serve --engine=torch --checkpoint_path=FOLDER`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 after an orderly stop, 1 where the engine failed, 2 for a bad start."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        from engines.serve import opening, options, running

        asked = options.read(arguments)
        if asked.platform == "cpu":
            os.environ.setdefault("JAX_PLATFORMS", "cpu")  # jax then looks for nothing else
        shape = opening.shape_of(asked)
        text = opening.text_of(asked, shape)
        engine = opening.opened(asked, shape, text)
        return asyncio.run(running.serve(asked, shape, text, engine))
    except ModuleNotFoundError as problem:
        logging.error("%s is missing: pip install -e '.[serve,torch]'", problem.name)
    except KeyboardInterrupt:
        logging.error("stopped before it was ready")
    except (ValueError, OSError, MemoryError) as problem:
        logging.error("%s", problem)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
