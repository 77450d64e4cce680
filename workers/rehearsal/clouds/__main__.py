"""The machines of both clouds, in the place of the spot market: `python -m workers.rehearsal.clouds ESTATE`.

It speaks the market's own API (`workers/rehearsal/market.py`), which then is what the clouds do by themselves: take a
machine back with a notice, here said by the instance's metadata and, at AWS, on EventBridge too.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from werkzeug.serving import make_server

from workers.domain.names import HostId
from workers.rehearsal import places as at
from workers.rehearsal.aws.owner import AwsOwner
from workers.rehearsal.clouds.mirror import Mirror
from workers.rehearsal.clouds.sides import AWS, AwsSide, HetznerSide
from workers.rehearsal.landlord import Landlord
from workers.rehearsal.market import EstateFile, create_market


def serve(file: Path) -> None:
    """Run until SIGTERM or SIGINT; then every machine ends too."""
    told = EstateFile.model_validate_json(file.read_bytes())
    landlord, owner = Landlord(told.estate), AwsOwner(at.MOTO_URL)
    mirror = Mirror(landlord, [AwsSide(owner), HetznerSide(at.HETZNER_URL)])

    def warn(host_id: HostId) -> None:
        found = mirror.shown(host_id)
        if found is not None and found[0] == AWS:
            owner.warn(found[1].plot.instance_id)

    server = make_server(*told.listen, create_market(landlord, warn), threaded=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: landlord.close())
    threading.Thread(target=server.serve_forever, daemon=True, name="requests").start()
    threading.Thread(target=mirror.follow, daemon=True, name="mirror").start()
    landlord.own()
    server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the estate, as JSON")
    serve(parser.parse_args().file)


if __name__ == "__main__":
    main()
