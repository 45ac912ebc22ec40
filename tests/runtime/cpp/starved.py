"""Opens a bundle in processes with few resources: ``python -m tests.runtime.cpp.starved WHAT BUNDLE``.

Prints a line for each amount of what there is, ``AMOUNT STATUS MESSAGE``; the status of a process that a signal ended
is the signal, negative, and of one that did not end in time -99.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from tests.runtime.cpp.library import Environment, NativeError, Session, load

NOBODY = 65534
SECONDS = 20
FILES, THREADS, STEP = 8, 8, 1 << 20
#: resource -> amounts, from none to enough
AMOUNTS = {
    "files": range(FILES),
    "threads": range(20),
    "shared_threads": range(20),
    "memory": range(0, 48 * STEP, STEP),
}


def _starve(what: str, amount: int) -> None:
    if what == "files":
        last = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)][-1]  # no gap is left
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1 + amount,) * 2)
    elif what == "memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + amount,) * 2)
    else:
        resource.setrlimit(resource.RLIMIT_NPROC, (amount, amount))
        if os.geteuid() == 0:  # for whom the limit does not hold
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)


def _open(what: str, bundle: Path, environment: Environment | None) -> str:
    many = what.endswith("threads")
    shared = what == "shared_threads"
    try:
        environment = environment or Environment(THREADS if shared else 0)
        session = Session(bundle, environment=environment, threads=0 if shared else THREADS if many else 1)
        session.run({"input_ids": np.array([[2, 5, 7, 3]])}, "sst2")
    except NativeError as e:
        return f"{e.status} {e}"
    except MemoryError:
        return "6 Python itself has none"
    return "0 answers"


def _tell(writer: int, what: str, amount: int, bundle: Path) -> None:
    # ONNX Runtime may end the process if memory runs out while it starts: some of its noexcept functions throw
    started = Environment(0) if what == "memory" else None
    _starve(what, amount)
    os.write(writer, _open(what, bundle, started).encode())


def _attempt(what: str, amount: int, bundle: Path) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # a thread has its whole stack from the start; a stack that grows into the limit ends the process
            thread = threading.Thread(target=_tell, args=(writer, what, amount, bundle))
            thread.start()
            thread.join()
        finally:
            os._exit(0)
    os.close(writer)
    ready = select.select([reader], [], [], SECONDS)[0]
    if not ready:
        os.kill(child, signal.SIGKILL)
    said = os.read(reader, 4096).decode() if ready else "-99 hangs"
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    return said or f"{-status} ends without a word"


def main() -> None:
    what, bundle = sys.argv[1], Path(sys.argv[2])
    load()
    for amount in AMOUNTS[what]:
        said = _attempt(what, amount, bundle)
        print(amount, said, flush=True)
        if said.startswith("-99"):
            break


if __name__ == "__main__":
    main()
