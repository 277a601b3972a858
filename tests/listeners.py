"""What tests ask about the processes that they have started."""

import socket

import psutil


def free_port():
    """Return the number of a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(pid):
    """Return the process `pid` and all processes that it has started, directly or not."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def listening(pid):
    """Return the addresses, as (host, port), on which the process `pid` and those that it has started listen."""
    addresses = set()
    for process in family(pid):
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:  # it has just ended
            continue
        addresses |= {tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}
    return addresses
