#!/bin/sh
# Builds and runs the README's program in C, against the shared and against the static library. Arguments: folder of the
# snippets, folder of the installed libraries, C compiler.
set -eu
cd "$1"
export PKG_CONFIG_PATH="$2/pkgconfig" LD_LIBRARY_PATH="$2"
flags="-std=c11 -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror"
# shellcheck disable=SC2046,SC2086
"$3" $flags product.c -o product_shared $(pkg-config --cflags --libs quantal-c) -lm
./product_shared
# shellcheck disable=SC2046,SC2086
"$3" $flags product.c -o product_static $(pkg-config --cflags quantal-c) "$2/libquantal.a" -lstdc++ -lm -pthread
./product_static
