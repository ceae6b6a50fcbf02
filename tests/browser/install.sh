#!/bin/sh
# A Chromium for the browser tests, and fonts for the nine languages: nothing where both are there, else Debian's packages,
# else Playwright's own download. Ends well in any case: without a Chromium the tests say what to type.
set -u
playwright=$1

missing=""
if command -v dpkg-query >/dev/null; then
    wanted="libatomic1 fonts-noto-core fonts-noto-cjk"  # Playwright's own Node needs libatomic
    # Ubuntu's chromium is a snap, which does not start in a container.
    if grep -q '^ID=debian' /etc/os-release && ! command -v chromium >/dev/null; then wanted="chromium $wanted"; fi
    for package in $wanted; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
fi

as_root=""
if [ "$(id -u)" != 0 ]; then as_root="sudo -n"; fi
if [ -n "$missing" ] && $as_root true 2>/dev/null; then
    echo "installing$missing"
    { $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq $missing; } >/dev/null \
        || echo "not installed:$missing"
fi

if ! command -v chromium >/dev/null; then
    deps=""
    if $as_root true 2>/dev/null; then deps="--with-deps"; fi
    "$playwright" install $deps chromium || true
fi
