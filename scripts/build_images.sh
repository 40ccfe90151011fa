#!/usr/bin/env bash
# Build the images loradeck-web and loradeck-worker with docker, podman or buildah. Settings, all from the environment:
#   TARGETS     which ones                              (default: "web worker")
#   TAG         their tag                               (default: latest)
#   BASE_IMAGE  base with Python 3.11+ and venv         (default: the Dockerfile's)
#   BUILDER     docker, podman or buildah               (default: the first one installed)
#   BUILD_FLAGS more flags for the builder, e.g. "--network host --build-arg DEMO_MODEL=0"
# docs/images.md shows a build without a container engine.
set -euo pipefail
cd "$(dirname "$0")/.."

find_builder() {
    local name
    for name in docker podman buildah; do
        if command -v "$name" >/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No docker, podman or buildah was found. Install one of them, e.g.: apt-get install buildah" >&2
    return 1
}

builder=${BUILDER:-$(find_builder)}
case "$builder" in
    docker) command=(docker build) ;;
    podman) command=(podman build --format docker) ;; # the OCI format has no HEALTHCHECK
    buildah) command=(buildah bud --format docker) ;;
    *)
        echo "BUILDER=$builder is not known: choose docker, podman or buildah." >&2
        exit 2
        ;;
esac

read -ra flags <<<"${BUILD_FLAGS:-}"
if [ -n "${BASE_IMAGE:-}" ]; then
    flags+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi
for target in ${TARGETS:-web worker}; do
    "${command[@]}" "${flags[@]}" --target "$target" --tag "loradeck-$target:${TAG:-latest}" .
done
