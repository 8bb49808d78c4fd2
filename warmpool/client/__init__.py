"""The client: a pure half (`requests`) and a shell (`sync`), with `autostart` for when no daemon runs."""
