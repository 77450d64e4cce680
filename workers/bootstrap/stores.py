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


def open_bucket_at_home(settings: ControlSettings, bucket: str) -> S3Objects:
    """Open the bucket with URLs that are signed for its own region, whichever the settings or the machine name.

    Raises `Refused` if there is no such bucket, or `Unreachable`.
    """
    found = S3Objects.open(bucket, settings.objects_region, settings.objects_endpoint)
    home = found.region()
    return found if home is None else S3Objects.open(bucket, home, settings.objects_endpoint)
