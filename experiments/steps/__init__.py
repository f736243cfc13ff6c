"""Steps that only one experiment has, a module of its name: how they are keyed, and how they are built."""
