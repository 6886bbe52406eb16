"""`python -m outsize` is the `outsize` command."""

from .cli.main import main

main()
