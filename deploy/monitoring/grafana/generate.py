#!/usr/bin/env python3
"""Writes the dashboards from `boards/` into `dashboards/`; `--check` says whether they are current and writes nothing.

Needs nothing but Python 3.11. Run it after a change: `python3 deploy/monitoring/grafana/generate.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from boards import engine, hosts, overview  # noqa: E402  # they lie beside this file, wherever it is called from

BOARDS = {"overview.json": overview.build, "engine.json": engine.build, "hosts.json": hosts.build}


def rendered() -> dict[str, str]:
    """Each file's text by its name."""
    return {name: json.dumps(build(), indent=1, ensure_ascii=False) + "\n" for name, build in BOARDS.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if a file in dashboards/ is not current")
    check_only = parser.parse_args().check
    stale = []
    for name, text in rendered().items():
        path = HERE / "dashboards" / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if not check_only:
            path.write_text(text, "utf-8")
    if stale:
        sys.stdout.write(f"{'not current' if check_only else 'written'}: {', '.join(stale)}\n")
    return 1 if stale and check_only else 0


if __name__ == "__main__":
    sys.exit(main())
