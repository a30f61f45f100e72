#!/bin/sh
# A server for tests: it says that it is ready by making the file that it is given, and then waits.
: >"$1" || exit 1
while :; do sleep 0.05; done
