"""The serial console through nova-serialproxy, as a tenant's browser uses it."""

from __future__ import annotations

import contextlib
import time

import websocket

from aio.tenant import SECONDS


@contextlib.contextmanager
def console(url: str):
    """Open the websocket behind a console's URL."""
    connection = websocket.create_connection(url, timeout=60, subprotocols=["binary"])
    try:
        yield connection
    finally:
        connection.close(timeout=5)


def say(connection, text: str, answer: str) -> str:
    """Type a line, again while nothing comes, until the answer is seen; return what was seen."""
    seen, deadline = "", time.monotonic() + SECONDS
    connection.send_binary(f"{text}\r".encode())
    while answer not in seen:
        assert time.monotonic() < deadline, f"{answer!r} did not come, but {seen[-500:]!r}"
        connection.settimeout(5)
        try:
            seen += connection.recv_data()[1].decode("utf-8", "replace")
        except websocket.WebSocketTimeoutException:
            connection.send_binary(f"{text}\r".encode())
    return seen


def test_a_command_is_typed_and_answered(web, tenant):
    with console(tenant.serial_url(web.server)) as connection:
        say(connection, "", "# ")
        say(connection, "echo $(hostname) says $((6*7))", "ring-web says 42")
    assert "ring-web says 42" in tenant.console(web.server)


def test_the_url_opens_it_again(web, tenant):
    url = tenant.serial_url(web.server)
    for number in (1, 2):
        with console(url) as connection:
            say(connection, "", "# ")
            say(connection, f"echo this is $(({number}*100))", f"this is {number}00")


def test_a_token_that_nobody_gave_opens_nothing(web, tenant):
    address, _, token = tenant.serial_url(web.server).partition("token=")
    with console(f"{address}token={token[::-1]}") as connection:
        assert has_ended(connection)


def has_ended(connection) -> bool:
    try:
        return connection.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    except (websocket.WebSocketConnectionClosedException, ConnectionError):
        return True
