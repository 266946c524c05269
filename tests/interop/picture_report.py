"""Takes the README's picture of a report: `picture_report.py results/report.html figures/report.png`."""

import sys
from pathlib import Path

from browser import Browser

if __name__ == "__main__":
    report, picture = sys.argv[1:]
    with Browser() as browser:
        browser.page(Path(report).resolve().as_uri(), width=1240, height=980).screenshot(picture)
