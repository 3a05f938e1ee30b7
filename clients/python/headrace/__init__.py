"""Client side of Headrace: the generated stubs are in `headrace.v1`."""
