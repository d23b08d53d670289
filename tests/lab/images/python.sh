#!/bin/sh
# python.sh PREFIX ROOT: copy the CPython below PREFIX to ROOT/usr/local, as in the official image.
set -e
tar -C "$1" --exclude='lib/python*/test' --exclude='lib/python*/config-*' \
    --exclude='lib/python*/site-packages/*' --exclude='lib/python*/idlelib' --exclude=__pycache__ \
    --exclude=share -cf - bin/python3.12 lib include | tar -C "$2/usr/local" -xf - --no-same-owner
ln -s python3.12 "$2/usr/local/bin/python3"
ln -s python3.12 "$2/usr/local/bin/python"
chroot "$2" ldconfig
chroot "$2" python -m ensurepip
chroot "$2" sh -c 'ln -s pip3.12 /usr/local/bin/pip && ln -sf pip3.12 /usr/local/bin/pip3'
chroot "$2" python -c 'import bz2, ctypes, lzma, readline, sqlite3, ssl, zlib'
