#!/bin/sh
# What Ray is told is HAProxy. It lies beside the code and not in the scratch, whose file system may not let anything run.
exec "$NANOSWAP_EDGE_PYTHON" -m nanoswap.serve.haproxy "$@"
