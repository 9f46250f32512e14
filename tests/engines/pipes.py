"""The smallest real site: processes that take errands from a pipe, and can die.

It holds the base of the remote executors to their contract without any library of others.
"""

import concurrent.futures
import pickle
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import fanfold
from fanfold.errors import EngineLost
from fanfold.executors.remote.executor import RemoteExecutor
from fanfold.executors.remote.site import Loss, Site

SOURCE = str(Path(fanfold.__file__).parents[1])  # for a Python where fanfold is not installed

WORKER = """
import os, pickle, select, sys
sys.path.append(sys.argv[1])
from fanfold.executors.remote.errand import run_errand

inbox, outbox = os.fdopen(0, "rb", buffering=0), os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
last = 0

def read(count):
    data = bytearray()
    while len(data) < count:
        data += inbox.read(count - len(data)) or sys.exit()
    return data

def receive():
    return pickle.loads(read(int.from_bytes(read(8), "big")))

def wanted():
    global last
    while select.select([inbox], [], [], 0)[0]:
        last = receive()[0]
    return last < number

while True:
    number, published, parcel = receive()
    if parcel is None:
        continue
    answer = run_errand(published, parcel, worker=f"pipe {os.getpid()}", wanted=wanted)
    pickle.dump([bytes(buffer) for buffer in answer], outbox)
    outbox.flush()
"""


class PipeDied(Exception):
    """A worker has gone."""


class Crew:
    """Worker processes. They stay for the next site, and are replaced when they die.

    ``python`` is the interpreter that they run.
    """

    def __init__(self, count, python=sys.executable):
        self.workers = [Worker(python) for _ in range(count)]

    @property
    def replaced(self):
        """How many have died so far."""
        return sum(worker.deaths for worker in self.workers)

    def close(self):
        for worker in self.workers:
            worker.close()


class Worker:
    def __init__(self, python):
        self.python = python
        self.deaths = 0
        self.start()

    def start(self):
        self.lock = threading.Lock()
        self.number = 0
        self.process = subprocess.Popen(
            [self.python, "-c", WORKER, SOURCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, published, parcel):
        """The answer of the worker; raises `PipeDied`."""
        try:
            self.send(published, [bytes(buffer) for buffer in parcel])
            return pickle.load(self.process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            pid, exitcode = self.process.pid, self.process.wait()
            self.deaths += 1
            self.close()
            self.start()
            raise PipeDied(pid, exitcode) from None

    def send(self, published, parcel):
        with self.lock:
            if parcel is not None:
                self.number += 1
            message = pickle.dumps((self.number, published, parcel))
            self.process.stdin.write(len(message).to_bytes(8, "big") + message)
            self.process.stdin.flush()

    def interrupt(self):
        with suppress(OSError):
            self.send(None, None)

    def close(self):
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()
        self.process.wait()


class PipeSite(Site):
    """Errands for a crew, each given to the first worker that is free."""

    name = "the crew"

    def __init__(self, crew):
        self.crew = crew
        self.posted = 0
        self.gone = False
        self.published = {}
        self.queue = queue.SimpleQueue()
        self.running = {}
        self.threads = [
            threading.Thread(target=self.serve, args=(worker,)) for worker in crew.workers
        ]
        for thread in self.threads:
            thread.start()

    @property
    def workers(self):
        return len(self.threads)

    def publish(self, parcel):
        handle = object()
        self.published[handle] = [bytes(buffer) for buffer in parcel]
        return handle

    def retract(self, handle):
        del self.published[handle]

    def post(self, handle, parcel):
        self.posted += 1
        future = concurrent.futures.Future()
        self.queue.put((future, self.published.get(handle), parcel))
        return future

    def cancel(self, future):
        if not future.cancel() and future in self.running:
            self.running[future].interrupt()

    def serve(self, worker):
        while (work := self.queue.get()) is not None:
            future, published, parcel = work
            if future.set_running_or_notify_cancel():
                self.running[future] = worker
                try:
                    future.set_result(worker.run(published, parcel))
                except Exception as error:
                    future.set_exception(error)
                del self.running[future]
            del work, future, parcel
        self.queue.put(None)

    def lost(self, error):
        if not isinstance(error, PipeDied):
            return None
        pid, exitcode = error.args
        return Loss(f"pipe {pid}", exitcode, pid)

    def check(self):
        if self.gone:
            raise EngineLost(f"{self.name} went home")

    def close(self):
        self.queue.put(None)
        for thread in self.threads:
            thread.join()


class PipeExecutor(RemoteExecutor):
    name = "pipes"

    def __init__(self, crew, **options):
        super().__init__(PipeSite(crew), **options)
