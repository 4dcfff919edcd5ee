"""Where the device's end begins."""

import os
import sys
from typing import IO

from .checks import root_folder
from .files import serve
from .messages import Refused, read_request, reason_of, refusal, say
from .programs import execute
from .runs import keep


def main(source: IO[bytes]) -> None:
    """Do what the first line asks for; whatever the shell printed before is not ours."""
    try:
        os.write(1, b"\n")  # it may have printed without an end of line
        request = read_request(source.readline())
        root = root_folder(request["root"])
        if request["mode"] == "serve":
            serve(root, source)
        elif request["mode"] == "exec":
            execute(root, request["arguments"], request["stdin"], source)
        elif request["mode"] == "keep":
            keep(root, request, source)
        else:
            raise Refused("failed", "no mode %r" % request["mode"])
    except (BrokenPipeError, EOFError):
        os._exit(0)
    except Exception as error:
        say(refusal(error))
        sys.exit(reason_of(error)[1])
