"""The page at /ui: one file, and the policy by which a browser runs and loads nothing else."""

import base64
import hashlib
import re
from pathlib import Path

PATH = "/ui"
FILE = Path(__file__).with_name("ui.html")


def read_page(*, guarded: bool) -> str:
    """Return the HTML; `guarded` has it show the field for a token from the start."""
    page = FILE.read_text(encoding="utf-8")
    return page.replace('id="access" hidden', 'id="access"') if guarded else page


def security_policy(page: str) -> str:
    """Return the Content-Security-Policy of `page`: its own script and style, by their hashes.

    Source: https://www.w3.org/TR/CSP3/
    """
    directives = {
        "default-src": "'none'",
        "script-src": _hash(page, "script"),
        "style-src": _hash(page, "style"),
        # The empty icon.
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        # No text becomes HTML, whatever the script does with it.
        "require-trusted-types-for": "'script'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def _hash(page: str, tag: str) -> str:
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
