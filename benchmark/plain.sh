#!/bin/sh
# Slim checkouts by plain git alone: `plain.sh clone` or `plain.sh update` of SGLang and FlashInfer in this directory.
# It keeps no local work, continues nothing that was interrupted, and knows FlashInfer's directories by heart.
set -eu
github=https://github.com
superproject() { # PATH NAME
    git init -q -b main "$2" && git -C "$2" remote add -t main origin "$github/$1/$2.git"
    git -C "$2" fetch -q --depth=1 --no-tags origin main
    git -C "$2" checkout -q --track -B main origin/main
}
submodule() { # OWNER NAME DIRECTORY...
    path=flashinfer/3rdparty/$2 url=$github/$1/$2.git
    commit=$(git -C flashinfer rev-parse "HEAD:3rdparty/$2" 2> /dev/null) || return 0
    if [ ! -e "$path/.git" ]; then
        git init -q "$path" && git -C "$path" remote add origin "$url"
        git -C "$path" config remote.origin.promisor true
        git -C "$path" config remote.origin.partialclonefilter blob:none
    fi
    if [ "$(git -C "$path" rev-parse -q --verify HEAD)" = "$commit" ]; then return 0; fi
    shift 2
    if [ $# -gt 0 ]; then git -C "$path" sparse-checkout set --cone "$@"; fi
    git -C "$path" fetch -q --depth=1 --filter=blob:none origin "$commit"
    git -C "$path" rev-list --objects --missing=print --no-walk "$commit" -- "$@" | sed -n 's/^?//p' |
        git -C "$path" fetch -q --depth=1 --filter=blob:none --stdin origin
    git -C "$path" checkout -q --detach "$commit"
}
if [ "$1" = clone ]; then
    superproject sgl-project sglang
    superproject flashinfer-ai flashinfer
else
    for name in sglang flashinfer; do git -C $name pull -q --ff-only --no-tags --no-recurse-submodules; done
fi
submodule NVIDIA cutlass include tools/util/include
submodule gabime spdlog include
submodule NVIDIA cccl cub/cub libcudacxx/include thrust/thrust
git -C flashinfer submodule -q init
git -C flashinfer submodule -q absorbgitdirs
