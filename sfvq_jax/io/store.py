"""Where objects lie: folders of a disk, buckets of gs:// and s3://, pages of http(s)://.

TensorStore reads and writes all of them. A server that is busy is asked again, with growing pauses,
for a few minutes.
"""

import functools
import os
import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tensorstore as ts

from sfvq_jax.io.reading import one_line

RETRIES = {"max_retries": 10, "initial_delay": "500ms", "max_delay": "32s"}  # up to three minutes
CACHE_BYTES = 2**26  # of what was read: the indices of shards, and chunks that are asked for twice
SLOW_SECONDS = 10.0  # after which it is told that a server does not answer


def is_remote(uri: str | Path) -> bool:
    """Whether it is a URI such as gs://bucket/latents.zarr and no path."""
    return "://" in str(uri)


@functools.cache
def context() -> ts.Context:
    """What all stores share: how often they ask again, and their cache."""
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": CACHE_BYTES},
            **{f"{kind}_request_retries": RETRIES for kind in ("s3", "gcs", "http")},
        }
    )


def open_store(uri: str | Path) -> ts.KvStore:
    """A folder as a key-value store; the key "" is what the URI itself names.

    AWS_ENDPOINT_URL and AWS_DEFAULT_REGION are heeded, so that servers that speak S3 (MinIO, R2)
    are reached.

    Args:
      uri: a path, or gs://, s3:// or http(s)://; a folder ends with "/".

    Raises:
      ValueError: another scheme.
    """
    return ts.KvStore.open(store_spec(uri), context=context()).result()


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
            spec: dict[str, Any] = {"driver": "s3", "bucket": parts.netloc, "path": path}
            if "AWS_ACCESS_KEY_ID" in os.environ:  # else it looks for files, and logs that none are
                spec["aws_credentials"] = {"type": "environment"}
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


def settled(future: Any, name: str) -> Any:
    """What a future of TensorStore gives; that it takes long, or is asked for again, is told.

    Args:
      future: of a read or a write.
      name: of what it is about.
    """
    try:
        found = future.result(timeout=SLOW_SECONDS)
    except TimeoutError:
        warnings.warn(
            f"{name}: no answer for {SLOW_SECONDS:.0f} s; it is asked for up to"
            f" {RETRIES['max_retries']} times, with growing pauses",
            stacklevel=2,
        )
        found = future.result()
    finally:
        codes = _busy() if is_remote(name) else []
    if codes:
        warnings.warn(
            f"{name}: the server was busy (HTTP {', '.join(codes)}) and was asked again",
            stacklevel=2,
        )
    return found


_counted: dict[str, int] = {}  # answers of each code, up to now


def _busy() -> list[str]:
    """Codes of answers that TensorStore asked again for, which were not told yet."""
    (found, *_) = ts.experimental_collect_matching_metrics("/tensorstore/http/response_codes") or [
        {"values": []}
    ]
    new = []
    for answer in found["values"]:
        code, count = answer["code"], answer["value"]
        if (code in ("408", "429") or code >= "500") and count > _counted.get(code, 0):
            _counted[code] = count
            new.append(code)
    return new


def reason(error: Exception) -> str:
    """Why TensorStore could not read or write, in words."""
    text = one_line(error)
    if re.search(r"NOT_FOUND", text):
        return f"there is no such object ({text})" if "chunk" not in text else text
    if re.search(r"PERMISSION_DENIED|UNAUTHENTICATED", text):
        return f"access is denied: are the credentials right? ({text})"
    if "was ignored by server" in text:
        return f"the server gives no parts of a file, as a fit reads it: copy it to a disk ({text})"
    if re.search(r"UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED", text):
        return f"the server did not answer in {RETRIES['max_retries'] + 1} attempts ({text})"
    return text
