"""The serial console: Nova's API, Nova's own proxy, and a tenant who types.

Every test ends with LXD free of operations, and this process of threads and files.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from nova.tests.functional.api import client as api_client

from tests.functional.base import ServerTestCase, wait_for
from tests.functional.serialproxy import Browser, Proxy

_RPC = r".*Exception during message handling"
FLOOD = "yes 0123456789012345678901234567890123456789"


class SerialTestCase(ServerTestCase):
    def _configure(self):
        super()._configure()
        self.proxy = Proxy()
        self.addCleanup(self.proxy.stop)
        self.flags(
            enabled=True, base_url=f"ws://127.0.0.1:{self.proxy.port}/", group="serial_console"
        )

    def url(self, server: dict) -> str:
        request = {"remote_console": {"protocol": "serial", "type": "serial"}}
        answer = self.api.api_post(f"/servers/{server['id']}/remote-consoles", request)
        return answer.body["remote_console"]["url"]

    def attach(self, server: dict) -> Browser:
        browser = Browser(self.url(server))
        self.addCleanup(browser.vanish)
        return browser

    def wait_nothing_left(self) -> None:
        """Wait until neither LXD nor we have anything of a console."""
        wait_for(lambda: not self.consoles(), "LXD's consoles to end", 30)
        wait_for(lambda: not _named("lxd-serial-"), "the consoles' threads to end", 30)
        assert not self.processes()

    def consoles(self) -> list:
        listed = self._machine.get(f"/1.0/operations?recursion=1&project={self._project}")
        return [op for op in listed.get("running", []) if "console" in op["description"]]

    def processes(self) -> list[str]:
        """LXD's helpers of attached consoles, ours by their project."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "forkconsole" in command and self._project in command:
                found.append(command)
        return found


def _named(prefix: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


class SerialTest(SerialTestCase):
    def test_a_command_is_typed_and_answered(self):
        server = self.boot()
        browser = self.attach(server)
        browser.log_in()
        browser.ask("echo the answer is $((6*7))", "the answer is 42")
        browser.seen = ""
        browser.type("sleep 100000\r")
        browser.wait_for("\n/ # ", again="\x03")
        browser.ask("tty", "/dev/console")
        browser.close()
        self.wait_nothing_left()
        # The console log has what was seen, as far as LXD keeps it.
        log = self.api.post_server_action(server["id"], {"os-getConsoleOutput": {}})["output"]
        assert "the answer is 42" in log

    def test_the_log_can_be_read_meanwhile(self):
        server = self.boot()
        browser = self.attach(server)
        browser.log_in()
        browser.ask("echo one $((1+1))", "one 2")
        log = self.api.post_server_action(server["id"], {"os-getConsoleOutput": {}})["output"]
        assert "one 2" in log
        browser.ask("echo two $((1+2))", "two 3")

    def test_nothing_grows(self):
        server = self.boot()
        url = self.url(server)
        self.use(url)
        files = _files()
        for _ in range(5):
            self.use(url)
        wait_for(lambda: _files() <= files, "files to be closed", 30)

    def use(self, url: str) -> None:
        browser = Browser(url)
        browser.log_in()
        browser.vanish()
        self.wait_nothing_left()

    def test_a_second_client_takes_over(self):
        server = self.boot()
        first = self.attach(server)
        first.log_in()
        second = self.attach(server)
        first.wait_end()
        second.log_in()
        second.ask("echo second $((1+1))", "second 2")

    def test_a_reboot_of_the_guest_ends_it_and_the_url_works_again(self):
        server = self.boot()
        url = self.url(server)
        browser = Browser(url)
        browser.log_in()
        before = self.boot_time(server)
        browser.type("reboot\r")
        browser.wait_end()
        self.wait_nothing_left()
        wait_for(lambda: self.booted_since(server, before), "the guest to boot again")
        again = Browser(url)
        again.log_in()
        again.close()
        self.wait_nothing_left()

    def booted_since(self, server: dict, before: int) -> bool:
        try:
            return self.boot_time(server) > before
        except (OSError, IndexError, KeyError):
            return False

    def test_stop_and_delete_end_it(self):
        server = self.boot()
        browser = self.attach(server)
        browser.log_in()
        self.act(server, {"os-stop": None}, "SHUTOFF")
        browser.wait_end()
        self.wait_nothing_left()
        self.act(server, {"os-start": None}, "ACTIVE")
        browser = self.attach(server)
        browser.log_in()
        self.delete(server)
        browser.wait_end()
        self.wait_nothing_left()
        self.assert_nothing_on_host()

    def test_a_rescued_servers_console_is_the_rescues(self):
        server = self.boot()
        self.act(server, {"rescue": {}}, "RESCUE")
        browser = self.attach(server)
        browser.log_in()
        browser.ask("ls -d /mnt/rescued/etc", "\n/mnt/rescued/etc")

    def test_a_token_that_nobody_gave(self):
        address, _, token = self.url(self.boot()).partition("token=")
        stranger = Browser(f"{address}token={token[::-1]}")
        assert not stranger.read(30)
        assert not self.consoles()

    def test_who_gets_none(self):
        self.expect_log(_RPC)
        server = self.boot()
        for action, status in (("pause", "PAUSED"), ("unpause", "ACTIVE"), ("os-stop", "SHUTOFF")):
            self.act(server, {action: None}, status)
            if status != "ACTIVE":
                assert self.refusal(server) == 409
        self.flags(enabled=False, group="serial_console")
        assert self.refusal(server) == 400

    def refusal(self, server: dict) -> int:
        with pytest.raises(api_client.OpenStackApiException) as caught:
            self.url(server)
        return caught.value.response.status_code

    def test_nova_compute_ends_while_somebody_types(self):
        server = self.boot()
        browser = self.attach(server)
        browser.log_in()
        self.restart_compute()
        browser.wait_end()
        self.wait_nothing_left()
        again = self.attach(server)
        again.log_in()


class HostileSerialTest(SerialTestCase):
    """What a tenant can do to a host with a console."""

    def test_a_client_leaves_a_flood(self):
        """Neither LXD nor the container's monitor survives it without our care (LXD 5.0.2)."""
        server = self.boot()
        lxd = self._machine.lxd.process.pid
        for _ in range(5):
            browser = self.attach(server)
            browser.log_in()
            browser.type(f"{FLOOD} | head -c 20000000\r")
            browser.wait_for("0123456789" * 4)
            browser.vanish()
            self.wait_nothing_left()
        self.assert_well(server, lxd)

    def test_a_client_does_not_read(self):
        server = self.boot()
        lxd = self._machine.lxd.process.pid
        browser = self.attach(server)
        browser.log_in()
        browser.type(f"{FLOOD} | head -c 20000000; touch /done\r")
        wait_for(lambda: "done" in self.guest(server, "ls", "/"), "the guest to have written")
        self.assert_well(server, lxd)
        browser.vanish()
        self.wait_nothing_left()

    def test_a_guest_does_not_read(self):
        server = self.boot()
        lxd = self._machine.lxd.process.pid
        browser = self.attach(server)
        browser.log_in()
        browser.ask("stty raw -echo; echo re''ady; sleep 100000", "ready")
        for _ in range(100):
            browser.type("z" * 4096)
        self.assert_well(server, lxd)
        browser.vanish()
        self.wait_nothing_left()
        self.assert_well(server, lxd)

    def assert_well(self, server: dict, lxd: int) -> None:
        assert self._machine.lxd.process.pid == lxd, "LXD has died"
        assert self.lxd_instance(server)["status"] == "Running"
        assert self.guest(server, "echo", "well") == "well"

    def test_strangers_at_the_port(self):
        server = self.boot()
        url = self.url(server)
        address = self.compute.driver._serial._address
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT wrong HTTP/1.1\r\n\r\n"):
            with socket.create_connection(address, timeout=30) as stranger:
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.makefile("rb").read() == b"HTTP/1.1 403 Forbidden\r\n\r\n"
        assert not self.consoles()
        browser = Browser(url)
        browser.log_in()
        browser.close()
        self.wait_nothing_left()
