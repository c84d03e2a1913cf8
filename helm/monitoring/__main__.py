"""Write the chart's files for Prometheus and Grafana: `make monitoring`."""

from __future__ import annotations

import sys
from pathlib import Path

from helm.monitoring.files import DIRECTORY, files


def main() -> int:
    """Write what has changed, take away dashboards that are no more, and say so."""
    root = Path(__file__).parents[2] / DIRECTORY
    (root / "dashboards").mkdir(parents=True, exist_ok=True)
    made = files()
    for old in (root / "dashboards").glob("*.json"):
        if f"dashboards/{old.name}" not in made:
            old.unlink()
            sys.stdout.write(f"Removed: {DIRECTORY}/dashboards/{old.name}\n")
    for name, text in made.items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"Written: {DIRECTORY}/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
