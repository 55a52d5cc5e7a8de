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

import lazy_loader

# Loaded at first use.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
