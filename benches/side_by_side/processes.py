"""Starts, pins, measures and always ends processes."""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
STARTED = []


class Pinning:
    """Which processor the proxy gets, which the load; real-time priority where permitted."""

    def __init__(self, proxy, load, real_time):
        self.proxy_cpu, self.load_cpu, self.real_time = proxy, load, real_time

    def command(self, cpu, command):
        prefix = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(cpu)]
        if self.real_time:
            prefix += ["chrt", "-r", "1"]
        return [*prefix, *map(str, command)]

    def background(self, command):
        """On the load's processor, when nothing else has something to do there."""
        prefix = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(self.load_cpu)]
        return [*prefix, "nice", "-n", "19", *map(str, command)]

    def proxy(self, command):
        return self.command(self.proxy_cpu, command)

    def load(self, command):
        return self.command(self.load_cpu, command)


def may_run_real_time():
    if not shutil.which("chrt"):
        return False
    done = subprocess.run(["chrt", "-r", "1", "true"], capture_output=True)
    return done.returncode == 0


def give_ordinary_priority(pid):
    """Takes real-time priority from a process, whose threads of low priority would take equal turns
    with the others in it. Those that gave it up themselves keep what they chose."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        thread = int(task.name)
        if os.sched_getscheduler(thread) == os.SCHED_RR:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def start(command, log, environment=None, **streams):
    """Starts a process in a session of its own, so that its whole tree can be ended."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=streams.get("stdin", subprocess.DEVNULL),
        stdout=streams.get("stdout", log),
        stderr=log,
        start_new_session=True,
        text=True,
    )
    STARTED.append(process)
    return process


def end(process, patience=5):
    """Ends a process that `start` gave, with all its children."""
    if process in STARTED:
        STARTED.remove(process)
    members = tree(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in [process.pid, *members]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            continue


def end_all():
    for process in list(STARTED):
        end(process, patience=2)


def clean_up_on_exit():
    atexit.register(end_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: exit(1))


def tree(pid):
    """The children of a process, theirs, and so on; with the process itself."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(stat(entry)[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def stat(entry):
    """The fields of /proc/PID/stat that follow the name."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def cpu(pid):
    """User and system seconds that a process tree has used."""
    user = system = 0
    for member in tree(pid):
        fields = stat(Path(f"/proc/{member}"))
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS, system / TICKS


def pss(pid):
    """The proportional set size of a process tree, in bytes."""
    total = 0
    for member in tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, name, log, patience=60):
    """Waits until a port of ours accepts; fails with the log when its process ends."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    tail = Path(log).read_text(errors="replace")[-1500:]
    raise RuntimeError(f"{name} does not listen:\n{tail}")


def last_json(text, command):
    """The last line of JSON in a generator's output."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"no figures from {' '.join(command)}:\n{text[-1500:]}")
