"""The brain of the daemon. Pure: takes an event and the time, returns the effects to perform."""
