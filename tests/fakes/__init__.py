"""A builder a dataset: it writes a tiny faithful release and says what must come out of it.

Every module here has ``BUILDERS``, public class name to builder; they are found by themselves.
"""

import importlib
import pkgutil

from fakes._fake import Fake

__all__ = ["BUILDERS", "Fake"]

BUILDERS = {}
for _info in pkgutil.iter_modules(__path__):
    if not _info.name.startswith("_"):
        _found = importlib.import_module(f"fakes.{_info.name}").BUILDERS
        _twice = set(_found) & set(BUILDERS)
        if _twice:
            raise RuntimeError(f"two builders for {sorted(_twice)}")
        BUILDERS.update(_found)
