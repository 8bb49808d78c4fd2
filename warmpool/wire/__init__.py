"""The language that client, daemon and worker speak. Pure: bytes and facts, no clock, no socket."""
