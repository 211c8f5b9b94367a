"""Starts LocalStack after two repairs: it listens on loopback only, and its ENIs get MAC addresses that are some."""

import random

from twisted.internet import endpoints

_listen = endpoints.TCP4ServerEndpoint.__init__


def _listen_on_loopback(self, reactor, port, backlog=50, interface="127.0.0.1"):
    # The server forgets the host of GATEWAY_LISTEN and would listen on every interface.
    _listen(self, reactor, port, backlog, interface or "127.0.0.1")


endpoints.TCP4ServerEndpoint.__init__ = _listen_on_loopback

import moto.ec2.models.elastic_network_interfaces as enis  # noqa: E402
import moto.ec2.utils as utils  # noqa: E402


def _mac():
    # Without this a MAC reads 02:00:00:202x:17602x:9102x, which no link can have.
    return "02:00:00:" + ":".join("%02x" % random.randint(0, 255) for _ in range(3))


utils.random_mac_address = _mac
enis.random_mac_address = _mac

from localstack.runtime.main import main  # noqa: E402

main()
