"""The daemon's hands: sockets, processes, files. What to do with them is decided in `policy`."""
