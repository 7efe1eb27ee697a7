#!/bin/sh
# Builds the engine with what pkg-config says. Arguments: pkg-config, compiler, folder of the .pc files, engine
# sources, folder for the binary, a model.
set -eu
export PKG_CONFIG_PATH="$3"
cd "$5"
# shellcheck disable=SC2046
"$2" -std=c++20 -O1 "$4/main.cpp" "$4/kernels_runtime.cpp" -o engine_pkg_config $("$1" --cflags --libs quantal-runtime)
./engine_pkg_config "$6" blk.0.attn_output.weight 2
