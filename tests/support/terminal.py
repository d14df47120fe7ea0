"""A terminal around a command: terminal.py COMMAND...

Standard input goes to the terminal, what the terminal shows goes to standard output. On standard error
stand two JSON lines: {"pid": N} at the beginning, and at the end {"code": N, "restored": true|false}, where
`code` is negative for a signal and `restored` says whether the terminal is set as it was before.
"""

import fcntl
import json
import os
import select
import struct
import sys
import termios

ROWS, COLUMNS = 24, 80


def tell(**facts):
    sys.stderr.write(json.dumps(facts) + "\n")
    sys.stderr.flush()


def main(command):
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    before = termios.tcgetattr(slave)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for descriptor in (0, 1, 2):
            os.dup2(slave, descriptor)
        os.close(master)
        os.close(slave)
        os.execvp(command[0], command)
    tell(pid=pid)
    watched = [master, 0]
    status = None
    while True:
        readable, _, _ = select.select(watched, [], [], 0.02)
        if master in readable:
            os.write(1, os.read(master, 65536))
            continue  # Everything that was shown comes before the end is told.
        if 0 in readable:
            typed = os.read(0, 65536)
            if typed:
                os.write(master, typed)
            else:
                watched.remove(0)
        if status is None:
            ended, found = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = os.waitstatus_to_exitcode(found)
        elif not readable:
            break
    tell(code=status, restored=termios.tcgetattr(slave) == before)


main(sys.argv[1:])
