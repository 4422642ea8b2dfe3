#!/usr/bin/env bash
# Prints the path of a Chromium that the browser tests can drive, and nothing when there is none.
# `browser.sh --install` first tries to install Debian's package when the machine allows it.
set -euo pipefail

find_browser() {
    local name
    for name in ${CLUSTERCORE_BROWSER:-} chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name"; then
            return
        fi
    done
}

found=$(find_browser)
if [ -z "$found" ] && [ "${1:-}" = "--install" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Without a network or a package there is simply no browser, and its tests say that they were skipped.
    {
        export DEBIAN_FRONTEND=noninteractive
        timeout 120 apt-get update -qq &&
            timeout 300 apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core
    } >/dev/null || echo "chromium could not be installed" >&2
    found=$(find_browser)
fi
if [ -n "$found" ]; then
    echo "$found"
fi
