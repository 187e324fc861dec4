"""``python -m db`` is the console script ``db``."""

from db.cli import main

main()
