"""Let widgets react while a cell runs.

A kernel handles one message after the other, and a running cell is a message. A click therefore waits until the cell
has ended, unless the front end sends it to a subshell, as JupyterLab does with ipykernel 7. A cell that waits for a
widget can call `handle_pending` again and again: it reads the kernel's queue, handles the messages of widgets and puts
all others, such as the next cells, back in their order.

This uses inner parts of ipykernel 6 and 7, because no public function does it: `do_one_iteration` would run the next
cell inside this one, and ipykernel 7 no longer has it. If a future version has other parts, nothing happens, and clicks
wait for the end of the cell as before.
"""

import asyncio
import inspect
import json
import logging
import threading
from collections.abc import Coroutine
from typing import Any

import zmq
from IPython import get_ipython

COMM = {"comm_msg", "comm_close"}
_TASKS: set[asyncio.Task] = set()  # a task that nothing refers to may be deleted before it runs


def handle_pending() -> None:
    """Handle the messages of widgets that have arrived while the calling cell runs."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return
    try:
        if hasattr(kernel, "msg_queue"):
            _handle_queue(kernel)
        else:
            _handle_socket(kernel)
    except (AttributeError, KeyError, TypeError, zmq.ZMQError):
        logging.getLogger(__name__).warning("widgets wait for the end of the cell", exc_info=True)


def _handle_queue(kernel: Any) -> None:
    """Handle what ipykernel 6 has queued; everything else goes back, in its order."""
    kernel.shell_stream.flush(zmq.POLLIN)  # the stream's callback puts what has arrived into the queue
    others = []
    while not kernel.msg_queue.empty():
        entry = kernel.msg_queue.get_nowait()
        frames = entry[2][-1] if entry[2] else None
        if frames is None or not _handle_comm(kernel, frames, kernel.shell_stream):
            others.append(entry)
    for entry in others:
        kernel.msg_queue.put_nowait(entry)


def _handle_socket(kernel: Any) -> None:
    """Read what has arrived for the main thread of ipykernel 7; everything else runs after the cell, in its order."""
    thread = kernel.shell_channel_thread
    if thread:
        socket = thread.manager._shell_channel_to_main.to_socket
        stream = thread.manager._main_to_shell_channel.from_socket
    else:
        socket, stream = kernel.shell_stream.socket, kernel.shell_stream
    while socket.poll(0):
        frames = socket.recv_multipart(copy=False)
        if not _handle_comm(kernel, frames, stream):
            _later(kernel.shell_main(None, frames))


def _later(coroutine: Coroutine) -> None:
    """Run a coroutine as soon as the kernel's loop goes on."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def _handle_comm(kernel: Any, frames: list, stream: Any) -> bool:
    """Handle a message if it is one of a widget; return whether it was."""
    identities, parts = kernel.session.feed_identities(frames, copy=False)
    if len(parts) < 2 or json.loads(bytes(parts[1].buffer))["msg_type"] not in COMM:  # parts[0] is the signature
        return False
    message = kernel.session.deserialize(parts, content=True, copy=False)
    # A browser sends the next change of a control only after this one is reported as handled.
    kernel._publish_status("busy", "shell", parent=message)
    try:
        result = kernel.shell_handlers[message["header"]["msg_type"]](stream, identities, message)
        if inspect.isawaitable(result):
            _drive(result)
    finally:
        kernel._publish_status("idle", "shell", parent=message)
        kernel._publish_status("busy", "shell")  # the cell still runs
    return True


def _drive(coroutine: Coroutine) -> None:
    """Run a coroutine that waits for nothing to its end."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
