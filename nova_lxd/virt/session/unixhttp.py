"""HTTP over LXD's unix socket, with connections that are used again.

pylxd keeps a pool of one connection for every distinct URL, so most requests open a new one, and
urllib3 warns whenever two threads ask for one URL at a time.  This adapter, which pylxd takes
through its ``session`` argument, has one pool for the socket.
"""

from __future__ import annotations

import socket
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

_CONNECTIONS = 64
"""Idle connections kept: more than Nova's executors have threads."""


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__("localhost", **kwargs)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", maxsize=_CONNECTIONS)
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path)


class _Adapter(HTTPAdapter):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = _Pool(path)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> _Pool:
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:
        return str(request.path_url)

    def close(self) -> None:
        self._pool.close()


def open_session(scheme: str, path: str) -> requests.Session:
    """Make a session whose URLs with ``scheme`` lead to the unix socket at ``path``."""
    session = requests.Session()
    # Proxies and certificates of the environment have no business on a local socket.
    session.trust_env = False
    session.mount(scheme, _Adapter(path))
    return session
