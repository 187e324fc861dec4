"""``python -m producer`` is the console script ``producer``."""

from producer.cli import main

main()
