"""Each function does what no function should."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

from warmpool import BaseApp


class Misbehaves(BaseApp):
    def fine(self) -> str:
        return "fine"

    def kill_itself(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def become_another(self) -> None:
        os.execvp("sleep", ["sleep", "1000"])

    def exit_quietly(self) -> None:
        os._exit(0)

    def say_and_exit(self) -> None:
        print("my last words", flush=True)
        os._exit(3)

    def exit_loudly(self) -> None:
        sys.exit(3)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def close_all_descriptors(self) -> None:
        os.closerange(3, 4096)

    def ignore_signals(self) -> str:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGURG):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        return "deaf"

    def hold_the_gil(self) -> None:
        mutex = ctypes.create_string_buffer(64)
        libc = ctypes.PyDLL(None)
        libc.pthread_mutex_lock(mutex)
        print("holds it", flush=True)
        libc.pthread_mutex_lock(mutex)

    def leave_a_large_child(self) -> int:
        """One that takes long to die. Gives its pid."""
        code = f'held = bytearray(b"x") * {300 * 2**20}; print(len(held), flush=True); import time; time.sleep(3600)'
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        assert child.stdout is not None
        child.stdout.readline()
        return child.pid

    def leave_children(self) -> list[int]:
        """One that stays in the family, and one that runs away by forking twice."""
        near = subprocess.Popen(["sleep", "1000"])
        script = (
            "import os, subprocess\nos.setsid()\n"
            "print(subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)"
        )
        far = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        return [near.pid, int(far.stdout)]

    def leave_generations(self) -> None:
        subprocess.Popen(["sh", "-c", "sh -c 'sh -c \"sleep 1000; true\"; true'; true"])

    def leave_runners(self, pipe: str, step: str) -> None:
        """Each forks the next one and goes. Who lives has the pipe open."""
        code = f"import os, sys, time\npipe = open(sys.argv[1], 'w')\nwhile not os.fork():\n    {step}\n    time.sleep(0.02)\n"
        subprocess.Popen([sys.executable, "-c", code, pipe])

    def share_memory(self, helpers: int) -> tuple[str, int]:
        """Its name, and the process that is to remove it when the last has gone that was forked since."""
        from multiprocessing import get_context, resource_tracker, shared_memory

        self.shared = shared_memory.SharedMemory(create=True, size=1)
        for _ in range(helpers):
            get_context("fork").Process(target=signal.sigwait, args=([signal.SIGUSR1],), daemon=True).start()
        return self.shared.name, resource_tracker._resource_tracker._pid

    def read_stdin(self) -> str:
        return input()

    def write_to_stdout(self, count: int) -> int:
        return sys.stdout.write("x" * count + "\n")

    def start_thread(self) -> int:
        self.stop = threading.Event()
        threading.Thread(target=self.stop.wait, daemon=True).start()
        return threading.active_count()

    def use_multiprocessing(self) -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, 3])

    def run_asyncio(self) -> str:
        import asyncio

        async def inner() -> str:
            await asyncio.sleep(0)
            return "ran"

        return asyncio.run(inner())

    def drawn(self) -> float:
        import random

        return random.random()
