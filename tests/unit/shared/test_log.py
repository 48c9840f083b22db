"""Lines of several processes that share one pipe, as those of a training job do."""

import os
import subprocess
import sys

from components.shared.events import event_of

NUM_PROCESSES, NUM_EVENTS = 2, 2000
PROGRAM = f"""
import sys
from components.shared.log import set_up_log
log = set_up_log("train")
sys.stdout.write("ready\\n")
sys.stdin.read()
for number in range({NUM_EVENTS}):
    log.error("failed", number=number)
"""


def test_events_of_processes_that_write_at_once_come_on_lines_of_their_own():
    reader, writer = os.pipe()
    waiting, starting_gun = os.pipe()
    command = [sys.executable, "-u", "-c", PROGRAM]  # unbuffered, as torchrun starts its processes
    environment = os.environ | {"HAGANE_LOG": "json"}
    processes = [
        subprocess.Popen(command, stdin=waiting, stdout=writer, env=environment)
        for _ in range(NUM_PROCESSES)
    ]
    os.close(writer)
    os.close(waiting)
    with os.fdopen(reader) as lines:
        for _ in processes:
            assert next(lines) == "ready\n"
        os.close(starting_gun)
        events = [event_of(line) for line in lines]
    assert [process.wait() for process in processes] == [0] * NUM_PROCESSES
    assert sum(event is not None for event in events) == NUM_PROCESSES * NUM_EVENTS
