"""An object of a store -> a link in Markdown that a person can click in the KFP UI."""

import os
import re
from urllib.parse import quote, urlsplit

LINK_VARIABLE = "HAGANE_STORE_LINK"
"""Environment variable with a site's own address of an object, such as https://console.example.com/{bucket}?prefix={key}."""
BY_THE_UI = "artifacts/get?source=minio&bucket={bucket}&key={key}"
"""The KFP UI's server hands out objects of KFP's own store (frontend/server/handlers/artifacts.ts, 2.17: MINIO_HOST and its keys are
all that a stock one is given; `source=s3` asks Amazon). The address is relative to the UI's page."""
OWN_STORE = re.compile(r"(minio-service|seaweedfs)(\.[a-z0-9-]+(\.svc(\.cluster\.local)?)?)?")
"""Hosts that KFP's manifests give its own store: a service of the cluster."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def store_link(uri: str) -> str:
    """`[s3://bucket/key](address)` of an object where a click on it would open it; else the object's plain address.

    It opens where the site says how in LINK_VARIABLE, or where the object lies in KFP's own store, by the endpoint in use.
    """
    parts = urlsplit(uri)
    template = os.environ.get(LINK_VARIABLE) or (BY_THE_UI if _is_kfps_own_store() else "")
    if parts.scheme != "s3" or not template:
        return f"`{uri}`"
    address = template.replace("{bucket}", quote(parts.netloc)).replace("{key}", quote(parts.path.lstrip("/")))
    return f"[{uri}]({address})"


def _is_kfps_own_store() -> bool:
    endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    return OWN_STORE.fullmatch(urlsplit(endpoint).hostname or "") is not None
