"""Values -> one self-contained HTML page: no network, nothing runs but our own script.

Transcripts, file names and model names are data: the templates escape every value, and the page's
content security policy names our style and our script by their digests, so that markup that
should ever get through stays dead. The door to jinja2.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; it extends base.html.

    template  its name without .html; a script template.js beside it goes into the page
    values    plain data; each is escaped where it is printed
    """
    folder = files(__package__)
    script = folder / f"{template}.js"
    own = {
        "style": (folder / "page.css").read_text("utf-8"),
        "script": script.read_text("utf-8") if script.is_file() else "",
    }
    digests = {f"{name}_digest": _digest(text) for name, text in own.items()}
    return _environment().get_template(f"{template}.html").render(**values, **own, **digests)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        autoescape=True,
        loader=PackageLoader(__name__, "."),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )


def _digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
