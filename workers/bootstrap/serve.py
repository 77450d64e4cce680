"""`spot-runner serve`: the public listener and the host listener, each a gunicorn of its own under one supervisor.

    supervisor ─┬─ gunicorn, public: plain HTTP for GitHub and people, behind whatever ends their TLS
                └─ gunicorn, hosts: TLS with our `control` leaf, client certificates of the `hosts` issuer

gunicorn reads the leaf's files for every connection, so a renewal is nothing but new files.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from webhook.app import create_host_app, create_public_app
from webhook.seats import Seats
from webhook.setup import setup_routes
from webhook.words import Words
from workers.app import BackgroundHints, sending_to
from workers.bootstrap.github_app import webhook_secrets
from workers.bootstrap.leaf import RENEWAL_INTERVAL, renewal
from workers.bootstrap.offload import Offloaded
from workers.bootstrap.pointing import Pointer
from workers.bootstrap.setup import open_desk
from workers.bootstrap.stores import open_objects
from workers.bootstrap.supervisor import Child, Chore, supervise
from workers.bootstrap.surroundings import host_nats, surroundings_of
from workers.clock import SystemClock
from workers.domain.errors import Unfit
from workers.domain.installation import guests
from workers.domain.names import PackageDigest
from workers.domain.overlay import Overlay
from workers.identity import Authority
from workers.objects import DirectoryObjects
from workers.relay.client import RelayClient
from workers.settings import ControlSettings
from workers.store.repository import open_store
from workers.telemetry import start_logging

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# A daemon speaks every second, so its connection is kept for much longer than that.
HOST_KEEP_ALIVE_S: Final = 75
# Each holds one word of a host for some milliseconds; a fleet's notices come all at once.
HOST_THREADS: Final = 32
PUBLIC_PROCESSES: Final = 2
# Each is a delivery that waits for its commit.
PUBLIC_CONNECTIONS: Final = 1000
# Deliveries are written in a thread of their own, which may wait for PostgreSQL as if there were no gevent: in gevent's
# way psycopg would make a loop for each wait.
DRIVERS_WAIT: Final = "PSYCOPG_WAIT_FUNC=wait_c"
GRACEFUL_LIMIT_S: Final = 5
# A predecessor that was killed leaves gunicorn's processes for a moment: they look for their parent once a second.
PREDECESSOR_LIMIT_S: Final = 5.0
PREDECESSOR_INTERVAL_S: Final = 0.1
# A lease is held for milliseconds, or longer while a cloud is asked; the host says its word again anyway.
LEASE_WAIT: Final = timedelta(seconds=2)


def run_serve(settings: ControlSettings) -> int:
    """Serve until SIGTERM. Raises `Unfit`, before anything is started, if machine or settings do not allow it."""
    start_logging("serve")
    webhook_secrets(settings)
    open_desk(settings)
    for name, listen in (("public_listen", settings.public_listen), ("host_listen", settings.host_listen)):
        check_free(name, listen)
    renew = renewal(settings, "serve")
    children = [Child("public", public_command(settings)), Child("hosts", host_command(settings))]
    return supervise(children, [Chore(RENEWAL_INTERVAL.total_seconds(), renew)])


def public_app() -> WSGIApplication:
    """Return what a process of the public gunicorn runs."""
    settings = ControlSettings()
    start_logging("public")
    store = open_store(settings.database, SystemClock())
    hints = BackgroundHints(sending_to(settings.redis_url))
    served = guests(settings.installations_allowed, settings.installations_denied)
    app = create_public_app(Offloaded(store), hints, SystemClock(), webhook_secrets(settings), served)
    app.register_blueprint(setup_routes(open_desk(settings)))
    return app


def host_app() -> WSGIApplication:
    """Return what the process of the host gunicorn runs."""
    settings = ControlSettings()
    start_logging("hosts")
    clock = SystemClock()
    store = open_store(settings.database, clock, lease_wait=LEASE_WAIT)
    hints = BackgroundHints(sending_to(settings.redis_url))
    packages = (PackageDigest(settings.package),) if settings.package else ()
    authority = Authority.open(settings.home / "ca")
    objects = open_objects(settings, clock)
    served = objects if isinstance(objects, DirectoryObjects) else None
    seats = Seats(store, clock) if settings.overlay is Overlay.WIREGUARD else None
    relay = RelayClient(settings.relay_url, settings.home / "serve") if settings.relay_url else None
    follower = Pointer(store, relay) if relay else None
    surroundings, nats = surroundings_of(settings), host_nats(settings)
    words = Words(store, authority, hints, clock, packages, objects, seats, follower, surroundings, nats)
    return create_host_app(words, served)


def check_free(name: str, listen: str, limit_s: float = PREDECESSOR_LIMIT_S) -> None:
    """Raise `Unfit` unless this `address:port` can be listened on within the limit."""
    address, _, port = listen.rpartition(":")
    end = time.monotonic() + limit_s
    while True:
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            socket.create_server((address.strip("[]"), int(port)), family=family).close()
        except (OSError, ValueError, OverflowError) as error:
            if getattr(error, "errno", None) != errno.EADDRINUSE or time.monotonic() > end:
                remedy = "end what listens there or set another"
                raise Unfit(f"{name}: cannot listen on {listen!r} ({error}); {remedy}") from error
            time.sleep(PREDECESSOR_INTERVAL_S)
        else:
            return


def public_command(settings: ControlSettings) -> tuple[str, ...]:
    """Return the command line of the public gunicorn."""
    return (
        *_gunicorn(settings.public_listen, "gevent", PUBLIC_PROCESSES),
        *("--worker-connections", str(PUBLIC_CONNECTIONS)),
        *("--env", DRIVERS_WAIT),
        "workers.bootstrap.serve:public_app()",
    )


def host_command(settings: ControlSettings) -> tuple[str, ...]:
    """Return the command line of the host gunicorn: one process, so that what it remembers is remembered once."""
    leaf = settings.home / "serve"
    return (
        *_gunicorn(settings.host_listen, "gthread", 1),
        *("--threads", str(HOST_THREADS)),
        *("--certfile", str(leaf / "certificate.pem"), "--keyfile", str(leaf / "key.pem")),
        *("--ca-certs", str(leaf / "hosts-ca.pem"), "--cert-reqs", "1"),  # optional: a machine that registers has none
        *("--keep-alive", str(HOST_KEEP_ALIVE_S)),
        "workers.bootstrap.serve:host_app()",
    )


def _gunicorn(listen: str, worker_class: str, processes: int) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "gunicorn", "--bind", listen, "--worker-class", worker_class),
        *("--workers", str(processes)),
        *("--graceful-timeout", str(GRACEFUL_LIMIT_S), "--no-control-socket", "--log-level", "warning"),
        *("--worker-tmp-dir", _memory_backed()),
    )


def _memory_backed() -> str:
    """Return where a process's sign of life costs no disk access; a busy disk would look like a dead process."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"  # noqa: S108 - gunicorn makes an unnamed file there
