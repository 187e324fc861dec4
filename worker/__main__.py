"""``python -m worker`` is the console script ``worker``."""

from worker.cli import main

main()
