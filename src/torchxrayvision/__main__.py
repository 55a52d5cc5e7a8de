"""`python -m torchxrayvision` is the command `xrv`, for where its folder is not on the path."""

from __future__ import annotations

from torchxrayvision.cli import main

if __name__ == "__main__":
    main()
