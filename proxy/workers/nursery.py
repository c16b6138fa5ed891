"""The process that workers are forked from: what they run is loaded once, and one begins within milliseconds.

It has neither threads nor a loop, and serves nobody. It ends when the parent has gone; its workers notice that for
themselves, each at the other end of its channel.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable

DEAF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # of a terminal, or to all of us: the parent decides
BEGUN, FAILED, ENDED = "begun", "failed", "ended"


class Forker:
    """Forks a worker for each descriptor that it is sent, and tells of those that begin and end.

    Args:
        requests: brings descriptors, each with a byte.
        reports: takes lines: `begun PID`, `failed ERRNO`, `ended PID CODE`.
        work: what a worker does with its descriptor; returns its exit code.
    """

    def __init__(self, requests: socket.socket, reports: socket.socket, work: Callable[[int], int]) -> None:
        self._requests, self._reports, self._work = requests, reports, work
        self._awake, self._waker = socket.socketpair()

    def run(self) -> None:
        """Until the parent has gone."""
        for each in (self._awake, self._waker):
            each.setblocking(False)
        for number in DEAF:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno())
        while True:
            ready, _, _ = select.select([self._requests, self._awake], [], [])
            if self._awake in ready:
                self._awake.recv(4096)
                self._reap()
            if self._requests in ready:
                said, descriptors, _, _ = socket.recv_fds(self._requests, 1, 1)
                if not said:
                    return
                for descriptor in descriptors:
                    self._begin(descriptor)

    def _begin(self, descriptor: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory
            self._tell(FAILED, error.errno or 0)
        else:
            if pid == 0:
                os._exit(self._serve(descriptor))
            self._tell(BEGUN, pid)
        os.close(descriptor)

    def _serve(self, descriptor: int) -> int:
        """The life of a worker; its exit code."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for each in (self._requests, self._reports, self._awake, self._waker):
                each.close()
            return self._work(descriptor)
        except BaseException:  # noqa: BLE001  # the last that it can say
            traceback.print_exc()
            return 1

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._tell(ENDED, found[0], os.waitstatus_to_exitcode(found[1]))

    def _tell(self, *words: str | int) -> None:
        with contextlib.suppress(OSError):  # the parent has gone; the next look at the requests says so
            self._reports.sendall(" ".join(map(str, words)).encode() + b"\n")


def load() -> Callable[[int], int]:
    """All that workers run; looking at it for garbage would make copies of what they share."""
    from proxy.workers.worker import main

    gc.collect()
    gc.freeze()
    return main


def main() -> None:
    """The command; its arguments are where our package is, and the descriptors of requests and reports."""
    work = load()
    requests, reports = (socket.socket(fileno=int(each)) for each in sys.argv[2:4])
    Forker(requests, reports, work).run()
