#!/bin/sh
# A data directory that is a volume or in memory hides what the image has in its place: put the converted networks there.
set -eu
mkdir -p "$FACESIEVE_DATA_DIR/cache"
cp -R --no-clobber /opt/facesieve/cache/. "$FACESIEVE_DATA_DIR/cache/"
exec "$@"
