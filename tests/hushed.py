"""Secrets to be looked for where they must not be."""

from pathlib import Path
from uuid import uuid4


class Secrets:
    """Strings that are nowhere else in the world.

    Attributes:
        broker: a password.
        database: another.
        key: that signs messages.
    """

    def __init__(self) -> None:
        self.broker, self.database, self.key = (f"{uuid4().hex}/@{uuid4().hex}" for _ in range(3))

    def found_in(self, text: str | bytes) -> list[str]:
        """Return which of them, or parts of them, are in a text; the parts, because URLs are percent-encoded."""
        content = text if isinstance(text, bytes) else text.encode(errors="replace")
        parts = {name: value.split("/@") for name, value in vars(self).items()}
        return [name for name, some in parts.items() if any(part.encode() in content for part in some)]

    def found_below(self, folder: Path) -> dict[str, list[str]]:
        """Return which of them are in which files; where they are meant to be, a folder ``secrets``, is left out."""
        files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "secrets"]
        return {str(path): found for path in files if (found := self.found_in(path.read_bytes()))}
