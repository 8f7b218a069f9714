"""A page that this program wrote -> a small PNG of its upper part, for the documentation.

    python scripts/picture.py report.html docs/images/comparison.png

Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--until", default="Recordings", help="the heading that is left out")
    options = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 800, "height": 600}, color_scheme="light")
        page.goto(options.page.resolve().as_uri())
        box = page.locator("h2", has_text=options.until).bounding_box()
        height = box["y"] if box else 600
        area = {"x": 0, "y": 0, "width": 800, "height": height}
        page.screenshot(path=options.picture, clip=area, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
