"""The image store and its aliases."""

from __future__ import annotations

from typing import Any
from urllib import parse

from . import publishing
from .answers import Answer, Refusal, created, empty, sync
from .clock import stamp
from .operations import Operation
from .request import Request
from .state import Alias, Image, Project, State, suffix
from .upload import Upload, read_metadata, receive


def list_images(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/images``."""
    project = _project(state, request)
    images = [project.images[fingerprint] for fingerprint in sorted(project.images)]
    if request.recursion:
        return sync([_render(project, image) for image in images])
    return sync([f"/1.0/images/{image.fingerprint}{suffix(project.name)}" for image in images])


def create_image(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/images``: the body is the image; checks come in the operation."""
    if request.headers.get("Content-Type", "").startswith("application/json"):
        with state.lock:
            return publishing.publish(state, request)
    with state.lock:
        project = _project(state, request)
    folder = state.folder / "images"
    upload = receive(request.body, request.headers.get("Content-Type", ""), folder)

    def task(operation: Operation) -> None:
        try:
            operation.work(state.seconds.get("upload", 0))
            _take_in(state, project, upload, request, operation)
        finally:
            upload.discard()

    return state.operations.start(request, "Downloading image", {}, task)


def _take_in(
    state: State, project: Project, upload: Upload, request: Request, operation: Operation
) -> None:
    expected = request.headers.get("X-LXD-fingerprint", upload.fingerprint)
    if expected != upload.fingerprint:
        text = f"got {upload.fingerprint} expected {expected}"
        raise Refusal(400, f"fingerprints don't match, {text}")
    metadata = read_metadata(upload)
    operation.metadata = {"fingerprint": upload.fingerprint, "size": str(upload.size)}
    properties = dict(parse.parse_qsl(request.headers.get("X-LXD-properties", "")))
    image = Image(
        fingerprint=upload.fingerprint,
        properties={
            **{key: str(value) for key, value in (metadata.get("properties") or {}).items()},
            **properties,
        },
        architecture=metadata["architecture"],
        created_at=stamp(int(metadata["creation_date"]) * 10**9),
        size=upload.size,
        filename=request.headers.get("X-LXD-filename", upload.filename),
        public=request.headers.get("X-LXD-public") == "1",
    )
    with state.lock:
        if image.fingerprint in project.images:
            raise Refusal(400, "Image with same fingerprint already exists")
        target = state.folder / "images" / image.fingerprint
        upload.parts["metadata"].rename(target)
        if upload.rootfs:
            upload.rootfs.rename(f"{target}.rootfs")
        project.images[image.fingerprint] = image


def show_image(state: State, request: Request, fingerprint: str) -> Answer:
    """Answer ``GET /1.0/images/FINGERPRINT``; the first digits are enough."""
    project = _project(state, request)
    image = find_image(project, fingerprint)
    return sync(_render(project, image), etag=_covered(image))


def replace_image(state: State, request: Request, fingerprint: str) -> Answer:
    """Answer ``PUT /1.0/images/FINGERPRINT``."""
    return _update(state, request, fingerprint, merge=False)


def patch_image(state: State, request: Request, fingerprint: str) -> Answer:
    """Answer ``PATCH /1.0/images/FINGERPRINT``: properties are added."""
    return _update(state, request, fingerprint, merge=True)


def _update(state: State, request: Request, fingerprint: str, *, merge: bool) -> Answer:
    image = find_image(_project(state, request), fingerprint)
    request.check_etag(_covered(image))
    body = request.json()
    image.properties = (image.properties if merge else {}) | (body.get("properties") or {})
    image.public = body.get("public", image.public if merge else False)
    return empty()


def delete_image(state: State, request: Request, fingerprint: str) -> Answer:
    """Answer ``DELETE /1.0/images/FINGERPRINT``: its aliases go, instances made from it stay."""
    project = _project(state, request)
    image = find_image(project, fingerprint)

    def task(operation: Operation) -> None:
        operation.work(state.seconds.get("delete", 0))
        with state.lock:
            find_image(project, image.fingerprint)
            del project.images[image.fingerprint]
            for alias in list(project.aliases.values()):
                if alias.target == image.fingerprint:
                    del project.aliases[alias.name]

    resources = {"images": [f"/1.0/images/{image.fingerprint}"]}
    return state.operations.start(request, "Deleting image", resources, task)


def export_image(state: State, request: Request, fingerprint: str) -> Answer:
    """Answer ``GET /1.0/images/FINGERPRINT/export`` for a unified image."""
    image = find_image(_project(state, request), fingerprint)
    file = state.folder / "images" / image.fingerprint
    return Answer(200, file.read_bytes(), "application/octet-stream")


def find_image(project: Project, fingerprint: str) -> Image:
    """Return the image whose fingerprint begins so."""
    found = [
        image for image in project.images.values() if image.fingerprint.startswith(fingerprint)
    ]
    if len(found) != 1:
        raise Refusal(404, "Image not found")
    return found[0]


def list_aliases(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/images/aliases``."""
    project = _project(state, request)
    if request.recursion:
        return sync([_render_alias(alias) for alias in project.aliases.values()])
    return sync([f"/1.0/images/aliases/{name}" for name in project.aliases])


def create_alias(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/images/aliases``."""
    project = _project(state, request)
    body = request.json()
    name = body.get("name", "")
    if not name or not body.get("target"):
        raise Refusal(400, "name and target are required")
    if name in project.aliases:
        raise Refusal(409, f'Alias "{name}" already exists')
    image = find_image(project, body["target"])
    project.aliases[name] = Alias(name, image.fingerprint, body.get("description", ""))
    return created(f"/1.0/images/aliases/{name}{suffix(project.name)}")


def show_alias(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/images/aliases/NAME``."""
    rendered = _render_alias(find_alias(_project(state, request), name))
    return sync(rendered, etag=rendered)


def delete_alias(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/images/aliases/NAME``."""
    project = _project(state, request)
    find_alias(project, name)
    del project.aliases[name]
    return empty()


def find_alias(project: Project, name: str) -> Alias:
    """Return an alias by name."""
    try:
        return project.aliases[name]
    except KeyError:
        raise Refusal(404, "Image alias not found") from None


def _project(state: State, request: Request) -> Project:
    prefix = "Check if project has images: fetch project: "
    return state.project_for("images", request.project, prefix)


def _covered(image: Image) -> list[Any]:
    return [image.public, image.properties]


def _render_alias(alias: Alias) -> dict[str, Any]:
    return {
        "description": alias.description,
        "target": alias.target,
        "name": alias.name,
        "type": "container",
    }


def _render(project: Project, image: Image) -> dict[str, Any]:
    aliases = [
        {"name": alias.name, "description": alias.description}
        for alias in project.aliases.values()
        if alias.target == image.fingerprint
    ]
    return {
        "auto_update": False,
        "properties": image.properties,
        "public": image.public,
        "expires_at": "1970-01-01T00:00:00Z",
        "profiles": ["default"],
        "aliases": aliases,
        "architecture": image.architecture,
        "cached": False,
        "filename": image.filename,
        "fingerprint": image.fingerprint,
        "size": image.size,
        "type": "container",
        "created_at": image.created_at,
        "last_used_at": image.last_used_at,
        "uploaded_at": image.uploaded_at,
    }
