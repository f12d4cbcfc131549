"""A Glance image on its way to this host: a stream, and a file only where one is needed."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import nova.conf
from cryptography.exceptions import InvalidSignature
from nova.compute import utils as compute_utils
from nova.image import glance
from nova.virt import images
from oslo_log import log as logging
from oslo_utils import fileutils, units

from nova_lxd import exception
from nova_lxd.virt import image as image_translator
from nova_lxd.virt.model import ImageSource

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_PROGRESS_SECONDS = 10
"""How often the log tells how far a download is."""


def discard_unfinished() -> None:
    """Remove the files that a nova-compute that was killed has left."""
    for folder in Path(CONF.instances_path).glob(f"{folder_prefix()}*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def opened(context: Any, source: ImageSource, trusted_certs: Any) -> Iterator[io.BufferedReader]:
    """Read an image from Glance; ``peek()`` shows what the format is told by.

    Glance's own hash of it is checked at the end of the stream.  An image whose signature is to be
    verified is a file first: not before its last byte is there can Nova say whether it is good.

    :raises LXDDriverError: the download breaks off, also when the stream is read
    """
    if _needs_file(trusted_certs):
        with _folder(source.id) as path:
            with _room(source.id), _signature_errors(source.id):
                images.fetch(context, source.id, str(path), trusted_certs=trusted_certs)
            with path.open("rb", buffering=0) as file:
                yield io.BufferedReader(file, image_translator.SNIFF_BYTES)
        return
    with compute_utils.disk_ops_semaphore:  # images.fetch takes it as well
        chunks = glance.API().download(context, source.id)
        yield io.BufferedReader(Incoming(chunks, source), image_translator.SNIFF_BYTES)


def must_be_verified(trusted_certs: Any) -> bool:
    """Tell whether somebody demands that images are signed: a tenant, or the operator."""
    options = CONF.glance
    by_default = options.enable_certificate_validation and options.default_trusted_certificate_ids
    return bool(trusted_certs or by_default or options.verify_glance_signatures)


def verify(context: Any, source: ImageSource, trusted_certs: Any) -> None:
    """Verify the signature of an image that is here already.

    Nova verifies what it downloads, so it is downloaded once more, to nowhere.

    :raises ImageRefused: it is not what was signed; Nova's own errors for other flaws
    """
    with _signature_errors(source.id):
        glance.API().download(context, source.id, trusted_certs=trusted_certs)


@contextlib.contextmanager
def seekable(stream: BinaryIO, image_id: str) -> Iterator[BinaryIO]:
    """Make a file of a stream whose format cannot be read from its beginning to its end."""
    with _folder(image_id) as path, path.open("w+b") as file:
        with _room(image_id):
            shutil.copyfileobj(stream, file, units.Mi)
            file.seek(0)
        yield file


class Incoming(io.RawIOBase):
    """What Glance sends, with its progress in the log."""

    def __init__(self, chunks: Iterable[bytes], source: ImageSource) -> None:
        self._chunks = iter(chunks)
        self._source = source
        self._rest = b""
        self._received = 0
        self._told = time.monotonic()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, unless this is the end.

        :raises LXDDriverError: the download broke off, or is not what Glance's hash says
        """
        filled = 0
        while filled < len(buffer) and (self._rest or self._receive()):
            taken = self._rest[: len(buffer) - filled]
            self._rest = self._rest[len(taken) :]
            buffer[filled : filled + len(taken)] = taken
            filled += len(taken)
        return filled

    def _receive(self) -> bool:
        try:
            self._rest = next(self._chunks, b"")
        except Exception as error:
            raise exception.LXDDriverError(
                f"image {self._source.id}: its download broke off after {self._received} bytes: "
                f"{error}"
            ) from error
        self._received += len(self._rest)
        self._tell()
        return bool(self._rest)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _PROGRESS_SECONDS:
            return
        self._told = now
        size = self._source.size
        share = f" of {size} ({100 * self._received // size} %)" if size else ""
        LOG.info("Image %s: %d bytes%s are here", self._source.id, self._received, share)


def _needs_file(trusted_certs: Any) -> bool:
    """Tell whether Nova verifies the image, or fetches it in a way of its own."""
    return must_be_verified(trusted_certs) or CONF.glance.enable_rbd_download


@contextlib.contextmanager
def _folder(image_id: str) -> Iterator[Path]:
    """Give a path for one image that nobody else can read, and remove it whatever happens."""
    with _room(image_id):
        fileutils.ensure_tree(CONF.instances_path)
        folder = tempfile.TemporaryDirectory(prefix=folder_prefix(), dir=CONF.instances_path)
    with folder:
        yield Path(folder.name) / "image"


@contextlib.contextmanager
def _signature_errors(image_id: str) -> Iterator[None]:
    """Say what Nova leaves without a word, and would try on every host."""
    try:
        yield
    except InvalidSignature as error:
        reason = "its content is not what was signed; upload it again, or sign it anew"
        raise exception.ImageRefused(image_id, reason) from error


@contextlib.contextmanager
def _room(image_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise exception.LXDDriverError(
            f"image {image_id} cannot be kept in [DEFAULT]instances_path "
            f"({CONF.instances_path}) while it is fetched: {error}"
        ) from error


def folder_prefix() -> str:
    """Begin the names of our folders: on shared storage another host has its own."""
    return f"lxd-image-{re.sub('[^A-Za-z0-9.-]', '_', CONF.host)}-"
