"""The device's end of a connection: sent over it and run there by the system's Python, 3.6 or later.

One line of JSON asks for one of three things:

- `serve`: answer requests about files and kept programs, one line each;
- `exec`: run a program for as long as the connection lasts;
- `keep`: start a program that outlives the connection, or find it again, and tell what it writes.

It stands on its own: nothing of edgebench need be on the device, where `_channel` makes modules of these files without
writing them. Whatever is named by the other side is checked here once more.
"""
