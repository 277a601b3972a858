"""What tests ask about the processes that they have started."""

import psutil


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
