"""Files from the network: one verified copy in the cache, or a typed error.

A file gets its final name only after its size and SHA-256 were checked. What is known about
its bytes decides: a checksum that independent sources agree on must match; one that a single source
reports should (a difference is a `ChecksumWarning`); where nobody has published one, the first copy
is trusted, recorded in ``pins.json`` of the cache, and said (`UnpinnedDownloadWarning`). A later
change of a trusted file is refused until `forget` accepts it. Every file is hashed again at its
first use in a process, so that neither its time nor a record in the cache can vouch for it.

Three environment variables, read at each call:

- ``XRV_CACHE_DIR``: the cache folder; by default the one of TorchXRayVision 1.5.7.
- ``XRV_OFFLINE``: 1 forbids the network.
- ``XRV_MIRROR``: folders or URL prefixes, separated by semicolons, tried before the published
  address. A mirror holds files by name. What it gives is checked like any other copy.

Addresses on the Hugging Face Hub follow its own variables too: ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``,
``HF_TOKEN`` and ``HF_HOME`` (docs/hub.md).
"""

from __future__ import annotations

from torchxrayvision.remote.cache import (
    Verification,
    cache_dir,
    default_cache_dir,
    forget,
    is_as_made,
    is_offline,
    locate,
    make_folder,
    open_to_write,
    remember_made,
    sha256_once,
    verify,
)
from torchxrayvision.remote.credentials import endpoint, hub_is_offline, hub_token
from torchxrayvision.remote.fetching import fetch
from torchxrayvision.remote.hub import HubAddress, HubModel, fetch_from_hub, look_up

__all__ = [
    "HubAddress",
    "HubModel",
    "Verification",
    "cache_dir",
    "default_cache_dir",
    "endpoint",
    "fetch",
    "fetch_from_hub",
    "forget",
    "hub_is_offline",
    "hub_token",
    "is_as_made",
    "is_offline",
    "locate",
    "look_up",
    "make_folder",
    "open_to_write",
    "remember_made",
    "sha256_once",
    "verify",
]
