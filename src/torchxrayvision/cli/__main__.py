"""`python -m torchxrayvision.cli`, for machines where the script is not on the path."""

from torchxrayvision.cli import main

main()
