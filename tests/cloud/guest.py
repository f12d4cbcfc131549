"""A server as its user reaches it: through its floating IP, with a key."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from aio.process import wait_until
from aio.tenant import SECONDS

_OPTIONS = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "BatchMode": "yes",
    "ConnectTimeout": "5",
}
_CANNOT_CONNECT = 255


@dataclass(frozen=True)
class Guest:
    """Where a server is and how to get in."""

    server: str
    address: str
    key: Path

    def _ssh(self, command: str, user: str, key: Path) -> subprocess.CompletedProcess[str]:
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        return subprocess.run(
            ["ssh", "-i", str(key), *options, f"{user}@{self.address}", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, command: str, user: str = "root") -> str:
        """Run a command inside and return what it printed; it must succeed."""
        done = self._ssh(command, user, self.key)
        assert done.returncode == 0, f"{command}: status {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def lets_in(self, user: str = "root", key: Path | None = None) -> bool:
        """Whether ssh gets in."""
        return self._ssh("true", user, key or self.key).returncode == 0

    def answers_ping(self) -> bool:
        """Whether one ping comes back within two seconds."""
        ping = ["ping", "-n", "-c", "1", "-W", "2", self.address]
        return subprocess.run(ping, capture_output=True, check=False).returncode == 0

    def wait_for_ping(self) -> None:
        """Wait until a ping comes back."""
        wait_until(self.answers_ping, SECONDS, f"{self.address} to answer a ping")

    def wait_for_silence(self) -> None:
        """Wait until pings stay unanswered."""
        wait_until(lambda: not self.answers_ping(), SECONDS, f"{self.address} to be silent")

    def wait_for_ssh(self) -> None:
        """Wait until ssh gets in."""
        wait_until(self.lets_in, SECONDS, f"ssh to get into {self.address}", interval=0.5)

    def boot_time(self) -> str:
        """Return when process 1 of the server started, in the host's clock ticks."""
        return self.run("cut -d ' ' -f 22 /proc/1/stat")
