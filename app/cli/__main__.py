"""`python -m app.cli` is the same as `loradeck`."""

from app.cli import main

main()
