"""The object store that the settings name."""

from __future__ import annotations

from workers.objects import DirectoryObjects, S3Objects
from workers.ports import Clock
from workers.settings import ControlSettings


def open_objects(settings: ControlSettings, clock: Clock) -> DirectoryObjects | S3Objects:
    """Open the bucket, if one is named, or the directory in `home`."""
    if settings.objects_bucket is not None:
        return S3Objects.open(settings.objects_bucket, settings.objects_region, settings.objects_endpoint)
    return DirectoryObjects.open(settings.home / "objects", settings.home / "objects.key", clock)
