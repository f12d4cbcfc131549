"""Nova's double of Glance, which also keeps what is uploaded and finds what is asked for."""

from __future__ import annotations

from nova.tests import fixtures as nova_fixtures


class GlanceFixture(nova_fixtures.GlanceFixture):
    """Keeps images in memory."""

    def update(self, context, image_id, metadata, data=None, purge_props=False):
        """Change an image; what it is given as ``data`` is its content from now on."""
        content = data.read() if data else None
        image = super().update(context, image_id, metadata, purge_props=purge_props)
        if content is not None:
            self._imagedata[image_id] = content
            image["size"] = len(content)
        return image

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
