"""Where objects lie: folders of a disk, buckets of gs:// and s3://, pages of http(s)://.

TensorStore reads and writes all of them; its own retries, with growing pauses, hide a server that
is busy for a moment.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tensorstore as ts


def is_remote(uri: str | Path) -> bool:
    """Whether it is a URI such as gs://bucket/latents.zarr and no path."""
    return "://" in str(uri)


def open_store(uri: str | Path) -> ts.KvStore:
    """A folder as a key-value store; the key "" is what the URI itself names.

    AWS_ENDPOINT_URL and AWS_DEFAULT_REGION are heeded, so that servers that speak S3 (MinIO, R2)
    are reached.

    Args:
      uri: a path, or gs://, s3:// or http(s)://; a folder ends with "/".

    Raises:
      ValueError: another scheme.
    """
    return ts.KvStore.open(store_spec(uri)).result()


def store_spec(uri: str | Path) -> dict[str, Any]:
    """As TensorStore's `kvstore`."""
    uri = str(uri)
    if not is_remote(uri):
        end = "/" if uri.endswith("/") else ""
        return {"driver": "file", "path": os.path.abspath(uri) + end}
    parts = urlsplit(uri)
    path = parts.path.removeprefix("/")
    match parts.scheme:
        case "s3":
            spec = {"driver": "s3", "bucket": parts.netloc, "path": path}
            if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
                region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
                spec |= {"endpoint": endpoint, "aws_region": region}
            return spec
        case "gs":
            return {"driver": "gcs", "bucket": parts.netloc, "path": path}
        case "http" | "https":
            return {"driver": "http", "base_url": f"{parts.scheme}://{parts.netloc}/", "path": path}
        case "file":
            return {"driver": "file", "path": parts.path}
    raise ValueError(
        f"{uri} begins with {parts.scheme}://; expected a path, or gs://, s3://, http:// or https://"
    )
