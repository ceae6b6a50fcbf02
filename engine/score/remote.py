"""HTTP for scorers behind a service: one session with patient retries."""

from collections.abc import Mapping

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

TIMEOUT = 20.0
"""Seconds to wait for a connection, and for an answer."""

MAX_RETRY_AFTER = 60
"""Seconds: a server that asks for more is asked again at the next run."""


def retries() -> Retry:
    """Five more tries of what may pass, 1, 2, 4, 8, 16 seconds apart and up to one more, or when the server says."""
    return Retry(
        total=5,
        backoff_factor=0.5,
        backoff_jitter=1.0,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
        retry_after_max=MAX_RETRY_AFTER,
    )


def session(retry: Retry, headers: Mapping[str, str]) -> requests.Session:
    """A session that sends these headers and tries again as `retry` says."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    made.headers.update(headers)
    return made
