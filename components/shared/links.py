"""An object of a store -> a link in Markdown that a person can click in the KFP UI."""

import os
from urllib.parse import quote, urlsplit

LINK_VARIABLE = "HAGANE_STORE_LINK"
"""Environment variable with a site's own address of an object, such as https://console.example.com/{bucket}?prefix={key}."""
BY_THE_UI = "artifacts/get?source=s3&bucket={bucket}&key={key}"
"""The KFP UI's server hands out objects of any bucket that its own credentials may read (frontend/server/handlers/artifacts.ts, 2.17); the
address is relative to the UI's page."""


def store_link(uri: str) -> str:
    """`[s3://bucket/key](address)` of an object; for a file of a machine, which no page can link to, its path."""
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        return f"`{uri}`"
    template = os.environ.get(LINK_VARIABLE) or BY_THE_UI
    address = template.replace("{bucket}", quote(parts.netloc)).replace("{key}", quote(parts.path.lstrip("/")))
    return f"[{uri}]({address})"
