"""A router on loopback, as far as its UPnP goes: written from the published descriptions (UPnP Device Architecture 1.0, WANIPConnection:1).

It answers searches by multicast, describes itself, and opens and closes ports in a table; which ports it refuses is for tests
to choose. It forwards nothing.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Final

from tests.processes import HANGS_S

GROUP: Final = ("239.255.255.250", 1900)
SERVICE: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_DESCRIPTION: Final = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>{DEVICE}</deviceType><friendlyName>stand-in</friendlyName><manufacturer>tests</manufacturer>
<modelName>stand-in</modelName><UDN>uuid:00000000-0000-0000-0000-000000000001</UDN><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><UDN>uuid:00000000-0000-0000-0000-000000000002</UDN><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><UDN>uuid:00000000-0000-0000-0000-000000000003</UDN><serviceList>
<service><serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><SCPDURL>/scpd.xml</SCPDURL>
<controlURL>/control</controlURL><eventSubURL>/events</eventSubURL></service>
</serviceList></device></deviceList></device></deviceList></device></root>"""


def _make_set() -> Event:
    event = Event()
    event.set()
    return event


@dataclass(slots=True)
class Router:
    """What the router did. `taken`: ports that it refuses; `is_free`: cleared, and it answers no question."""

    address: str = "203.0.113.9"  # outside
    only_permanent: bool = False  # it refuses leases that end, as some old ones do
    is_endless: bool = False  # its description hardly ever ends
    flood_mib: int = 0  # how much of one was read
    is_free: Event = field(default_factory=_make_set)
    asked: Event = field(default_factory=Event)
    taken: set[int] = field(default_factory=set)
    open: dict[int, tuple[str, int, int]] = field(default_factory=dict)  # port outside -> machine, port there, seconds
    closed: list[int] = field(default_factory=list)

    def act(self, name: str, said: dict[str, str]) -> tuple[str, int]:
        """The answer's inside, and the fault's number (0: none)."""
        port = int(said.get("NewExternalPort") or 0)
        if name == "GetExternalIPAddress":
            return f"<NewExternalIPAddress>{self.address}</NewExternalIPAddress>", 0
        if name == "GetStatusInfo":
            status = "<NewConnectionStatus>Connected</NewConnectionStatus><NewLastConnectionError>ERROR_NONE</NewLastConnectionError>"
            return f"{status}<NewUptime>1</NewUptime>", 0
        if name == "AddPortMapping":
            self.asked.set()
            self.is_free.wait(HANGS_S)
            if self.only_permanent and said["NewLeaseDuration"] != "0":
                return "", 725  # OnlyPermanentLeasesSupported
            if port in self.taken:
                return "", 718  # ConflictInMappingEntry
            self.open[port] = said["NewInternalClient"], int(said["NewInternalPort"]), int(said["NewLeaseDuration"])
            return "", 0
        if name == "DeletePortMapping" and port in self.open:
            del self.open[port]
            self.closed.append(port)
            return "", 0
        return "", 401


@contextmanager
def open_router() -> Iterator[Router]:
    """A router in the network of the loopback interface, while the block runs."""
    router, over = Router(), Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(router))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(GROUP)
    joined = struct.pack("4s4s", socket.inet_aton(GROUP[0]), socket.inet_aton("127.0.0.1"))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    sock.settimeout(0.1)
    threads = [Thread(target=server.serve_forever, args=(0.05,)), Thread(target=_answer_searches, args=(sock, server.server_port, over))]
    for thread in threads:
        thread.start()
    try:
        yield router
    finally:
        over.set()
        server.shutdown()
        for thread in threads:
            thread.join()
        server.server_close()
        sock.close()


def _answer_searches(sock: socket.socket, port: int, over: Event) -> None:
    answer = (
        f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=60\r\nEXT:\r\nLOCATION: http://127.0.0.1:{port}/description.xml\r\n"
        f"SERVER: tests UPnP/1.0\r\nST: {DEVICE}\r\nUSN: uuid:00000000-0000-0000-0000-000000000001::{DEVICE}\r\n\r\n"
    )
    while not over.is_set():
        try:
            asked, sender = sock.recvfrom(2048)
        except TimeoutError:
            continue
        if asked.startswith(b"M-SEARCH") and DEVICE.encode() in asked:
            sock.sendto(answer.encode(), sender)


def _make_handler(router: Router) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if router.is_endless:
                self._flood()
                return
            self._send(200, _DESCRIPTION if self.path == "/description.xml" else "<scpd/>")

        def _flood(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # whoever asked has gone
                for sent in range(1, 1025):
                    self.wfile.write(bytes(1 << 20))
                    router.flood_mib = max(sent, router.flood_mib)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            name = self.headers["SOAPAction"].strip('"').partition("#")[2]
            inside, fault = router.act(name, dict(re.findall(r"<(New\w+)>([^<]*)</", body)))
            said = f'<u:{name}Response xmlns:u="{SERVICE}">{inside}</u:{name}Response>'
            if fault:
                detail = f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{fault}</errorCode></UPnPError>'
                said = f"<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>{detail}</detail></s:Fault>"
            envelope = f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{said}</s:Body></s:Envelope>'
            self._send(500 if fault else 200, f'<?xml version="1.0"?>{envelope}')

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words: Any) -> None:
            """Tests are quiet."""

    return Handler
