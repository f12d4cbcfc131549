"""Nova's double of Glance, which also keeps what is uploaded and finds what is asked for.

It counts the downloads of images, too.
"""

from __future__ import annotations

from nova.tests import fixtures as nova_fixtures

_PIECE = 64 * 1024


class GlanceFixture(nova_fixtures.GlanceFixture):
    """Keeps images in memory.

    :ivar downloads: the ids of the images that were downloaded, in order
    """

    def __init__(self, test):
        super().__init__(test)
        self.downloads: list[str] = []

    def update(self, context, image_id, metadata, data=None, purge_props=False):
        """Change an image; what it is given as ``data`` is its content from now on."""
        content = data.read() if data else None
        image = super().update(context, image_id, metadata, purge_props=purge_props)
        if content is not None:
            self._imagedata[image_id] = content
            image["size"] = len(content)
        return image

    def download(self, context, image_id, data=None, dst_path=None, trusted_certs=None):
        """Write an image's content where it is wanted, or give it in pieces; take a note of it."""
        self.downloads.append(image_id)
        if data or dst_path:
            super().download(context, image_id, data, dst_path, trusted_certs)
            return None
        self.show(context, image_id)
        content = self._imagedata[image_id]
        return (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))

    def detail(self, context, filters=None, **kwargs):
        """List images, the newest first."""
        wanted = {
            key.removeprefix("property-"): value
            for key, value in (filters or {}).items()
            if key.startswith("property-")
        }
        images = super().detail(context)
        return [
            image for image in reversed(images) if wanted.items() <= image["properties"].items()
        ]


def breaks_off(self, context, image_id, **kwargs):
    """Stand in for ``nova.image.glance.API.download`` when Glance goes away meanwhile."""
    yield b"\x1f\x8b" + bytes(98)
    raise OSError("no more")
