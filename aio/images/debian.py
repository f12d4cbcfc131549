"""Build the Debian guest: systemd, cloud-init and sshd, as a cloud image would have them."""

import platform
import shutil
import subprocess
from pathlib import Path

from aio.errors import AioError
from aio.process import tail

RELEASE = "bookworm"
PACKAGES = (
    "systemd,systemd-sysv,dbus,udev,ifupdown,isc-dhcp-client,cloud-init,openssh-server,"
    "iproute2,iputils-ping,netbase,procps,sudo"
)
# A container has no binary formats to register; the unit would only make it "degraded".
MASKED = ("systemd-binfmt.service", "apt-daily.timer", "apt-daily-upgrade.timer")
# What would be the same in all servers, or belongs to the machine that built the image.
STRIPPED = (
    "etc/hostname etc/resolv.conf etc/machine-id var/lib/dbus/machine-id etc/ssh/ssh_host_* "
    "var/log/*.log var/log/apt/*"
)
# Nobody reads manuals in a test guest; the licences stay.
UNREAD = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*/*.gz", "/usr/share/info/*")
CLOUD_CONFIG = """\
# No locales are generated in this image.
locale: C.UTF-8
"""
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


def build_debian(path: Path, log: Path) -> Path:
    """Write a Debian 12 root filesystem as a .tar.gz to `path`; takes minutes and the network.

    What the builder says goes to `log`. Raises AioError with its end when it fails.
    """
    if not shutil.which("mmdebstrap"):
        raise AioError("mmdebstrap is missing", hint="apt-get install mmdebstrap")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("part-" + path.name)  # mmdebstrap reads the compression off the suffix
    with log.open("wb") as output:
        result = subprocess.run(command(part), stdout=output, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        part.unlink(missing_ok=True)
        raise AioError(
            f"mmdebstrap failed with status {result.returncode} ({log})",
            log=tail(log),
            hint="check that this machine can install Debian packages: apt-get update",
        )
    part.replace(path)
    return path


def command(target: Path) -> list[str]:
    """Return the mmdebstrap command that writes the image to `target`."""
    hooks = [f'--customize-hook=ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in MASKED]
    hooks.append(
        "--customize-hook=cat > \"$1/etc/cloud/cloud.cfg.d/90_nova_lxd.cfg\" <<'EOF'\n"
        f"{CLOUD_CONFIG}EOF"
    )
    hooks.append(f'--customize-hook=cd "$1" && rm -f {STRIPPED}')
    # Empty, not absent: systemd then makes a new identity at the first boot.
    hooks.append('--customize-hook=: > "$1/etc/machine-id"')
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        "--skip=output/dev",
        f"--include={PACKAGES}",
        *[f"--dpkgopt=path-exclude={pattern}" for pattern in UNREAD],
        *hooks,
        RELEASE,
        str(target),
        *_mirror(),
    ]


def _mirror() -> list[str]:
    """Return the apt sources of this machine if it runs the same release, else the default."""
    if platform.freedesktop_os_release().get("VERSION_CODENAME") != RELEASE:
        return []
    return [str(file) for file in SOURCES if file.exists() and file.stat().st_size][:1]
