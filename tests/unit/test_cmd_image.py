"""nova-lxd-image: the driver's verdict where images are built."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nova_lxd.cmd import image
from nova_lxd.exception import DiskTooSmall, ImageRefused
from nova_lxd.virt import rootfs
from tests.unit.archives import COMPRESS, entry, header, system, tar, unified

ROOT = Path(__file__).resolve().parents[2]
GIB = 1024**3
GOOD = COMPRESS["tar.gz"](tar(system()))
HEAVY = ("nova", "oslo_config", "oslo_log", "pylxd", "requests")


def sparse(gib: int) -> bytes:
    """A root file system with a file that is one hole."""
    real = b"%011o\0" % (gib * GIB) if gib < 8 else b"\x80" + (gib * GIB).to_bytes(11, "big")
    hole = header(name="hole", kind=b"S", spoil={483: real})
    return tar(system()).rstrip(b"\0").ljust(4 * 512, b"\0") + hole + bytes(1024)


@pytest.fixture
def say(tmp_path, capsys):
    """Run the command on some bytes; return its exit status and what it prints, by line."""

    def run(data: bytes, *options: str, name: str = "debian-12.tar.gz"):
        file = tmp_path / name
        file.write_bytes(data)
        status = image.main(["inspect", str(file), *options])
        return status, capsys.readouterr().out

    return run


def lines(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_accepted(say, tmp_path):
    status, text = say(GOOD)
    assert status == 0
    file = tmp_path / "debian-12.tar.gz"
    assert lines(text) == {
        "file": str(file),
        "format": "tar.gz",
        "unified LXD image": "no",
        "entries": "3",
        "unpacked bytes": "12288",
        "smallest flavor disk": "1 GiB",
        "upload": "openstack image create --disk-format raw --container-format bare "
        "--property hypervisor_type=lxd --property hw_vm_mode=exe --min-disk 1 "
        f"--file {file} debian-12",
        "verdict": "accepted",
    }
    assert list(lines(text))[-1] == "verdict"


def test_names_can_be_pasted_into_a_shell(say, tmp_path):
    name = "it's; rm -rf $HOME.tar"
    _, text = say(tar(system()), name=name)
    words = shlex.split(lines(text)["upload"])
    assert words[-3:] == ["--file", str(tmp_path / name), "it's; rm -rf $HOME"]


def test_unified_image(say):
    status, text = say(tar(unified(system())))
    assert status == 0
    assert lines(text)["unified LXD image"].startswith("yes: only what is below rootfs/ is used")


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", "unknown"),
        (b"QFI\xfb" + bytes(600), "qcow2"),
        (GOOD[:100], "tar.gz"),
        (tar([entry("../x")]), "tar"),
        (sparse(1024), "tar"),
    ],
)
def test_refused_in_the_words_of_the_driver(say, data, form):
    with pytest.raises(ImageRefused) as refusal:
        rootfs.inspect(io.BytesIO(data), "id", 0)
    status, text = say(data)
    assert status == 1
    found = lines(text)
    assert list(found) == ["file", "format", "verdict"]
    assert found["format"] == form
    assert found["verdict"] == f"refused: {refusal.value.reason}"


def test_disk_of_a_flavor(say):
    data = sparse(5)
    needed = 5 * GIB + 3 * 4096
    status, text = say(data, "--disk", "5")
    assert status == 1
    found = lines(text)
    assert found["smallest flavor disk"] == "6 GiB"
    assert "--min-disk 6 " in found["upload"]
    assert found["verdict"] == f"refused: {DiskTooSmall(5 * GIB, needed)}"
    assert say(data, "--disk", "6")[0] == 0


def test_the_smallest_disk_is_one_that_the_driver_accepts(say):
    for data in (GOOD, sparse(5)):
        disk = int(lines(say(data)[1])["smallest flavor disk"].split()[0])
        rootfs.inspect(io.BytesIO(data), "id", disk * GIB)
        if disk > 1:
            with pytest.raises(DiskTooSmall):
                rootfs.inspect(io.BytesIO(data), "id", (disk - 1) * GIB)


def test_an_archive_that_is_larger_than_what_is_in_it(tmp_path):
    # Nova's API refuses a file that is larger than the disk, whatever is in it.
    data = tar([*system(), *(entry(f"{n}") for n in range(100))])
    verdict = image.judge(io.BytesIO(data), "x", 4 * 4096)
    assert verdict.unpacked_bytes == 3 * 4096
    assert verdict.reason == str(DiskTooSmall(4 * 4096, len(data)))


def test_json(say, tmp_path):
    status, text = say(GOOD, "--json")
    assert status == 0
    found = json.loads(text)
    assert found.pop("upload").startswith("openstack image create ")
    assert found == {
        "file": str(tmp_path / "debian-12.tar.gz"),
        "format": "tar.gz",
        "unified": False,
        "entries": 3,
        "unpacked_bytes": 3 * 4096,
        "min_disk_gib": 1,
        "reason": None,
        "accepted": True,
    }
    status, text = say(GOOD[:100], "--json")
    assert status == 1
    found = json.loads(text)
    assert found["accepted"] is False
    assert "truncated" in found["reason"]
    assert found["entries"] is None


def run(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess:
    """Run the command as its console script does."""
    script = "import sys; from nova_lxd.cmd.image import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        input=data,
        capture_output=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )


def test_standard_input():
    done = run("inspect", "-", data=GOOD)
    assert done.returncode == 0
    found = lines(done.stdout.decode())
    assert found["file"] == "-"
    assert found["upload"].endswith("--file FILE NAME")
    assert found["verdict"] == "accepted"
    assert run("inspect", "-", data=GOOD[:100]).returncode == 1


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_file_that_cannot_be_read(name, tmp_path, capsys):
    assert image.main(["inspect", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert str(tmp_path / name) in err


@pytest.mark.parametrize(
    "arguments",
    [[], ["inspect"], ["inspect", "x", "--disk", "0"], ["inspect", "x", "--disk", "much"]],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        image.main(arguments)
    assert ended.value.code == 2
    assert "usage: nova-lxd-image" in capsys.readouterr().err


def test_it_is_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["nova-lxd-image"] == "nova_lxd.cmd.image:main"
    assert callable(image.main)


def test_it_starts_without_nova():
    script = (
        "import sys; import nova_lxd.cmd.image;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=120, cwd=ROOT
    )
    assert done.stdout.strip() == b"[]"
