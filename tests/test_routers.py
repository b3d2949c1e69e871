"""The routers that other tests stand behind do what routers at home do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.routers import Behind, Public, Router, World, find_obstacle, open_world

LISTEN = """
import socket
server = socket.create_server(("", 4001))
print("listening", flush=True)
while True:
    connection, address = server.accept()
    connection.sendall(("%s %d" % address).encode())
    connection.close()
"""
ASK = """
import socket, sys
asker = socket.socket()
asker.settimeout(float(sys.argv[2]))
asker.bind(("", 5555))
try:
    asker.connect((sys.argv[1], 4001))
    print(asker.recv(100).decode())
except TimeoutError:
    print("no answer")
except ConnectionRefusedError:
    print("refused")
"""


def ask(world: World, place: str, address: str, limit_s: float = 20.0) -> str:
    command = world.command(place, [sys.executable, "-c", ASK, address, str(limit_s)])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_router__shows_one_address_and_drops_what_was_not_asked_for() -> None:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    places = [
        Public("relay"),
        Router("north"),
        Behind("north", "anna"),
        Router("south", random_ports=True, refuses=True),
        Behind("south", "bert"),
    ]
    with open_world(places) as world:
        servers = [world.start(place, [sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True) for place in ("relay", "anna")]
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            server.stdout.close()
        relay = world.addresses["relay"]
        assert ask(world, "anna", relay) == f"{world.addresses['north']} 5555", "the port stays what it is"
        seen = ask(world, "bert", relay).split()
        assert seen[0] == world.addresses["south"]
        assert seen[1] != "5555"
        assert ask(world, "relay", world.addresses["north"], 0.5) == "no answer"
        assert ask(world, "relay", world.addresses["south"]) == "refused"
        assert ask(world, "north", world.addresses["anna"]) == "192.168.1.1 5555", "she does listen"
    assert all(server.poll() is not None for server in servers)
