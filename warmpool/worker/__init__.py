"""What runs in the processes that import apps: the template, and the workers forked from it."""
