#!/usr/bin/env bash
# The gateway's tests run against a real MQTT broker: install Debian's Mosquitto if there is none.
set -euo pipefail
PATH=$PATH:/usr/sbin:/usr/local/sbin
if command -v mosquitto >/dev/null; then
  exit 0
fi
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
if command -v apt-get >/dev/null && "${root[@]}" true 2>/dev/null; then
  echo "installing Mosquitto, the MQTT broker of the gateway's tests"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  { "${root[@]}" apt-get update -q && "${root[@]}" apt-get install -q -y --no-install-recommends mosquitto; } >"$log" 2>&1 || { tail -n 5 "$log"; exit 1; }
  "${root[@]}" systemctl disable --now mosquitto >/dev/null 2>&1 || true
else
  echo "Mosquitto is missing, and cannot be installed from here: install it (apt-get install mosquitto, brew install mosquitto) to run the gateway's tests" >&2
fi
