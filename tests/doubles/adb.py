"""An adb client that says what real ones do, in their words: `adb.py FOLDER …`, where FOLDER has what it says to what.

Files of the folder are named by a word of the command line (`shell`, `connect`, `devices`, `push`) and hold JSON:
`out`, `err`, `code`, and `seconds` that it takes. Every command line is written down in `asked`.
"""

import json
import os
import sys
import time

FOLDER, WORDS = sys.argv[1], sys.argv[2:]


def main():
    with open(os.path.join(FOLDER, "asked"), "a") as asked:
        asked.write(json.dumps(WORDS) + "\n")
    words = WORDS[2:] if WORDS[:1] == ["-s"] else WORDS
    path = os.path.join(FOLDER, words[0])
    if not os.path.exists(path):
        return 0
    with open(path) as stream:
        answer = json.load(stream)
    time.sleep(answer.get("seconds", 0))
    sys.stdout.write(answer.get("out", ""))
    sys.stderr.write(answer.get("err", ""))
    return answer.get("code", 0)


sys.exit(main())
