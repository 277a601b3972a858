"""What a sweep and torchrun listen on, and what another user of the machine can do with it: nothing."""

import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="needs pip install -e '.[sweep]'")
from ..listeners import family, listening  # needs psutil, which comes with distributed
from ..processes import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for ports and for other users as Linux has them"),
]
ENDLESS = ("-n", "40000", "--name", "BinaryNN", "--arch", "lenet")  # the test ends it


@pytest.fixture
def place():
    """Return a folder that all users of the machine can read, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="qat-ports-"))
    (folder / "tmp").mkdir()
    for path, mode in ((folder, 0o755), (folder / "tmp", 0o1777)):
        path.chmod(mode)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(place):
    """Return a function that starts a command, and one that waits until it has trained an epoch."""
    processes = []

    def start(*command):
        variables = {"QAT_DATA": "shapes", "QAT_MAX_IMAGES": "300", "OMP_NUM_THREADS": "1"}
        variables |= {"QAT_RESULTS_DIR": str(place / "runs"), "TMPDIR": str(place / "tmp")}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen(command, env=os.environ | variables, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()


def wait_for_an_epoch(process, place):
    while not list(place.glob("runs/*/*/*.npy")):
        assert process.poll() is None, "the command has ended"
        time.sleep(0.1)


def start_sweep(start):
    return start(sys.executable, "-m", "qathelpers", "sweep", *ENDLESS, "--workers", "1")


def answer_without_certificate(address):
    """Return how a server ends a TLS connection with a client without a certificate; "" if it does not speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address, timeout=10) as plain:
        try:
            connection = context.wrap_socket(plain)
        except (OSError, ssl.SSLError):
            return ""
        with connection:
            try:
                connection.sendall(b"x" * 100)
                return "accepted" if connection.recv(1) else "closed"
            except ssl.SSLError as error:
                return error.reason


def test_a_sweep_listens_on_loopback_only_and_every_port_asks_for_its_certificate(start, place):
    process = start_sweep(start)
    wait_for_an_epoch(process, place)
    addresses = sorted(listening(process.pid))
    print("a sweep of one worker listens on", addresses)
    assert len(addresses) == 3  # scheduler, nanny, worker
    assert all(ipaddress.ip_address(host).is_loopback for host, _ in addresses)
    answers = {address: answer_without_certificate(address) for address in addresses}
    assert all("CERTIFICATE_REQUIRED" in answer for answer in answers.values()), answers


STRANGER = """
import os, sys
from distributed import Client, Security

uid, place, unprotected = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def own():
    return Security.temporary()
with Client(unprotected, timeout=10) as client:  # imports all that is needed, as long as that can be read
    client.run_on_scheduler(os.getuid)
own()
for step in (os.setgroups, os.setgid, os.setuid):
    step([] if step is os.setgroups else uid)

def run_code(address, **options):
    try:
        with Client(address, timeout=2, **options) as client:
            client.run_on_scheduler(os.getuid)
            print("ran code", address, flush=True)
    except Exception as error:
        print("refused", address, type(error).__name__, flush=True)

def look_for_keys(pids):
    files = [f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "cmdline")]
    for pid in pids:
        try:
            files += [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
        except OSError:
            pass
        try:
            open(f"/proc/{pid}/mem", "rb").close()
            print("can read the memory of", pid, flush=True)
        except OSError:
            pass
    files += [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names]
    for path in files:
        try:
            with open(path, "rb") as file:
                if b"PRIVATE KEY" in file.read(1_000_000):
                    print("found a key", path, flush=True)
        except OSError:
            pass

run_code(unprotected)
print("ready", flush=True)
for line in sys.stdin:
    kind, *rest = line.split()
    if kind == "keys":
        look_for_keys(rest)
    else:
        for address in rest:
            run_code(f"tcp://{address}")
            run_code(f"tls://{address}")
            run_code(f"tls://{address}", security=own())
    print("done", flush=True)
"""


@pytest.fixture
def other_user():
    if os.geteuid() or not shutil.which("useradd"):
        pytest.skip("only root can make a second user, with useradd, who then tries to enter a sweep")
    name = f"qat-stranger-{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", name], check=True)
    yield int(subprocess.run(["id", "-u", name], capture_output=True, text=True, check=True).stdout)
    subprocess.run(["userdel", name], check=True)


@pytest.fixture
def stranger(other_user, place):
    """Return a function that asks a process of another user to do something and returns its lines of output."""
    from distributed import LocalCluster

    options = {"n_workers": 0, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**options) as unprotected:
        command = [sys.executable, "-c", STRANGER, str(other_user), str(place), unprotected.scheduler_address]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        process = subprocess.Popen(command, env=os.environ | {"HOME": "/"}, **pipes)

        def lines(end):
            return [line.strip() for line in iter(process.stdout.readline, f"{end}\n") if line or pytest.fail("ended")]

        def ask(*words):
            print(*words, file=process.stdin, flush=True)
            return lines("done")

        # The attempts must be able to succeed: they do, where there is no certificate.
        assert lines("ready") == [f"ran code {unprotected.scheduler_address}"]
        yield ask
        process.stdin.close()
        process.wait(30)


def test_another_user_of_the_machine_runs_no_code_through_a_sweep_and_reads_no_key(start, place, stranger):
    (place / "left.pem").write_text("-----BEGIN PRIVATE KEY-----", encoding="utf-8")
    (place / "left.pem").chmod(0o644)
    assert stranger("keys") == [f"found a key {place / 'left.pem'}"]
    (place / "left.pem").unlink()

    process, looks = start_sweep(start), 0
    while not list(place.glob("runs/*/*/*.npy")):  # the keys are in files for a moment while Dask starts
        assert process.poll() is None, "the sweep has ended"
        assert stranger("keys", *(one.pid for one in family(process.pid))) == []
        looks += 1
    addresses = [f"{host}:{port}" for host, port in listening(process.pid)]
    answers = stranger("code", *addresses)
    print(f"{looks} looks for keys;", *answers, sep="\n")
    assert looks > 10 and len(answers) == 3 * len(addresses) >= 9
    assert all(answer.startswith("refused") for answer in answers)


def test_training_with_torchrun_listens_on_loopback_except_for_the_store_of_torchrun(start, place):
    store = free_port()
    command = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={store}"]
    process = start(sys.executable, *command, "-m", "qathelpers", "train", *ENDLESS)
    wait_for_an_epoch(process, place)
    addresses = listening(process.pid)
    print("two processes of torchrun listen on", sorted(addresses))
    everywhere = {port for host, port, *_ in addresses if not ipaddress.ip_address(host).is_loopback}
    assert everywhere <= {store} and len(addresses) >= 3
