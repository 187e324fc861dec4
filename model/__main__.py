"""``python -m model`` is the console script ``model``."""

from model.cli import main

main()
