"""Entry point of ``python -m trimtab.run`` and of ``trimtab run``."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

from trimtab import Mesh
from trimtab.errors import TrimtabError
from trimtab.run.options import parse
from trimtab.run.supervisor import Supervisor


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of ``argv``. Returns the exit status; 2 for wrong arguments or settings."""
    options = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="trimtab run: %(message)s")
    try:
        with Mesh(name=options.service) as mesh:
            return asyncio.run(Supervisor(mesh, options).run())
    except TrimtabError as error:
        sys.stderr.write(f"trimtab run: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
