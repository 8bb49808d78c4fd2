"""For test suites: a daemon of one's own, time that a test can move, faults on demand, and apps without any daemon."""
