"""The code that runs on a device: standard library only, Python 3.6 syntax.

It is packed into one file and started as `python agent.pyz cell`, with a job as
one line of JSON on standard input; events come out as lines of JSON:

    hello         environment facts, what the device is, runtime version, clock; all that it has (inspect)
    started       a pass begins: finish, accuracy, memory, a trial, profile
    progress, finish   what the device makes of a bundle goes on; what came of it
    loaded        load and first-inference time
    warm          warm-up samples, and whether they settled
    samples       timed samples, at least every second, and when they were taken
    timing, alive a program takes the samples by its own clock; it goes on
    stages        the parts of an inference
    stopped       whether the wanted precision was reached
    step, rate    server: one rate that was tried; the highest that kept the bound
    conditions    load, clocks, temperatures, beside every pass
    meter, power  a power meter's rails, or why there are none; its readings
    idle, mark    when the device was left alone; when it was loaded to mark the time
    loadgen       what MLPerf LoadGen said
    predictions   outputs of the evaluation split, base64 of float32
    memory        resident memory of a process of its own
    profile       the model's nodes, each with its time
    finished      a pass is over
    tuning, tuned a knob is being set; a row for each knob
    device        what an environment must fit, and what is there (setup)
    verifying, making, unpacking, checking   how far the setup is
    installed, removed   what came of it
    done, failed  the last event; a stream without it is a failure

A host passes over events and fields that it does not know; an event with `essential: true` must be understood, or fails the cell.
"""

import os

PROTOCOL = 3

# Before any runtime is imported, here and in every process that is started from here: ONNX Runtime, from 1.29 on, would write
# to the user's folders, start threads beside the trials and call home. Set, whatever it was.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
