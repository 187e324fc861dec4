"""An S3 that has pictures in memory and answers late, as one does that is behind a network.

    python benchmarks/small_s3.py FOLDER [--delay-ms 30] [--made-up 1_000_000]

It knows two buckets, `pictures` with the files of the folder and `made-up` with objects that can only be listed, and
two requests, ListObjectsV2 and GET. It looks at no signature. One thread answers all, so that the machine is left to
who is measured: an emulator that is written for completeness takes as long for a request as a worker for a picture.
The first line that it prints is its address.
"""

import argparse
import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 1000
MODIFIED = "2026-01-02T03:04:05.000Z"
#: What separates the parts of an HTTP message's head.
END = "\r\n"


class SmallS3:
    """Answers requests."""

    def __init__(self, folder: Path, made_up: int, delay: float) -> None:
        self._made_up = made_up
        self._delay = delay
        self._contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        self._tags = {name: hashlib.md5(content).hexdigest() for name, content in self._contents.items()}
        self._names = list(self._contents)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the client closes it."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                await asyncio.sleep(self._delay)
                writer.write(self._answer(request.partition(END)[0].split(" ")[1]))
                await writer.drain()
        writer.close()

    def _answer(self, target: str) -> bytes:
        address = urlsplit(target)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        if not key:
            after = {name: values[0] for name, values in parse_qs(address.query).items()}
            return _message("200 OK", self._page(bucket, after.get("continuation-token", after.get("start-after", ""))))
        content = self._contents.get(key) if bucket == "pictures" else None
        if content is None:
            return _message("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
        return _message("200 OK", content, self._tags[key])

    def _page(self, bucket: str, after: str) -> bytes:
        objects = list(self._made_up_objects(after) if bucket == "made-up" else self._objects(after))
        listed = "".join(
            f"<Contents><Key>{name}</Key><LastModified>{MODIFIED}</LastModified>"
            f"<ETag>&quot;{tag}&quot;</ETag><Size>{size}</Size></Contents>"
            for name, tag, size in objects
        )
        is_full = len(objects) == PAGE
        token = f"<NextContinuationToken>{objects[-1][0]}</NextContinuationToken>" if is_full else ""
        head = f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(objects)}</KeyCount>{token}"
        return f"{head}<IsTruncated>{str(is_full).lower()}</IsTruncated>{listed}</ListBucketResult>".encode()

    def _objects(self, after: str) -> Iterator[tuple[str, str, int]]:
        begin = bisect_right(self._names, after)
        for name in self._names[begin : begin + PAGE]:
            yield name, self._tags[name], len(self._contents[name])

    def _made_up_objects(self, after: str) -> Iterator[tuple[str, str, int]]:
        begin = int(after[-13:-4]) + 1 if after else 0
        for index in range(begin, min(begin + PAGE, self._made_up)):
            yield f"{index // 1000:06}/IMG_{index:09}.jpg", f"{index * 7919:032x}", 100_000 + index % 7919


def _message(status: str, content: bytes, tag: str = "") -> bytes:
    fields = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT"]
    fields += [f'ETag: "{tag}"'] if tag else []
    return END.join([*fields, "", ""]).encode() + content


async def main() -> None:
    """Serve until the process is ended."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path)
    made.add_argument("--made-up", type=int, default=1_000_000)
    made.add_argument("--delay-ms", type=float, default=30.0)
    options = made.parse_args()
    storage = SmallS3(options.folder, options.made_up, options.delay_ms / 1000)
    server = await asyncio.start_server(storage.serve, "127.0.0.1", 0, backlog=256)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
