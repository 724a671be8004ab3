"""The ``trimtab`` command: hands the starting of servers to the command line, which must not know them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def main() -> int:
    """Run the command line of this process; the exit code."""
    args = sys.argv[1:]
    if args[:1] == ["run"]:
        from controlplane.cli.run import hand_over

        hand_over(args[1:])
    try:
        from controlplane.cli import root

        return root.main(root.build(serve=_serve, dev=_dev), args)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "controlplane", "trimtab"}:
            raise
        sys.stderr.write(
            f"error: the module {missing} is missing: this is the thin SDK, which has only `trimtab run`\n"
            "  hint: pip install 'trimtab[server]' brings the control plane and every command\n"
        )
        return 2


def _serve(file: Path | None, flags: dict[str, str]) -> int:
    from controlplane.process import announce_serving, run

    return run(flags, config=file, announce=announce_serving)


def _dev(file: Path | None, flags: dict[str, str]) -> int:
    from controlplane.process import announce_dev, run

    return run(flags, config=file, announce=announce_dev)


if __name__ == "__main__":
    sys.exit(main())
