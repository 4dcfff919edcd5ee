"""A program for a device that counts aloud, one line each, as its job on standard input says.

{"lines": 100, "pause": 0.01, "width": 0, "noise_mebibytes": 0, "stderr_mebibytes": 0}

Every start is written down in the file `starts` of the home folder. It ends when its standard input does.
"""

import json
import os
import sys
import threading
import time


def leave():
    while os.read(0, 4096):
        pass
    os._exit(3)


def main():
    with open(os.path.expanduser("~/starts"), "a") as starts:
        starts.write("%d\n" % os.getpid())
    job = b""
    while not job.endswith(b"\n"):
        job += os.read(0, 1)
    job = json.loads(job.decode())
    thread = threading.Thread(target=leave)
    thread.daemon = True
    thread.start()
    for _ in range(job.get("noise_mebibytes", 0)):
        sys.stdout.write("\x00\u00e4{" * (1 << 18))
    for _ in range(job.get("stderr_mebibytes", 0)):
        sys.stderr.write("E" * (1 << 20))
    for number in range(job["lines"]):
        print("")
        print(json.dumps({"event": "count", "number": number, "more": "x" * job.get("width", 0)}))
        sys.stdout.flush()
        time.sleep(job.get("pause", 0.01))
    sys.stderr.write("\nthat was all")


main()
